"""An editor goes to the hub and comes back: the same edits, by its commit, and no code with it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from compare import assert_equal
from huggingface_hub import ModelCard, constants
from small_hub import SmallHub, lay_out, small_hub
from typed import typed

import mend_jax as mj
from mend_jax.exports.folder import ExportError
from mend_jax.opened import opened
from mend_jax.saved.arrays import EditorError
from mend_jax.saved.directory import SavedEditor

pytest_plugins = ["scoped_run"]

NAME = "somebody/an-editor"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the hub, empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    with small_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield found


def prompts(saved: SavedEditor) -> list[str]:
    """What it says after an edit."""
    model = mj.tell(opened(saved), "Person 24 lives in", "Paris")
    return [mj.ask(model, f"Person {i} lives in", tokens=4) for i in (24, 25)]


def test_there_and_back(hub: SmallHub, scoped_folder: Path, scoped_editor: SavedEditor):
    """What is published opens by its name, by its commit, and says what it said; pickles beside it
    are left alone."""
    done = typed("mend-jax", "publish", "--editor", scoped_folder, "--name", NAME)
    name = done.out.split()[-1]
    (commit,) = hub.commits[NAME]
    assert name == f"{NAME}@{commit}"
    files = hub.commits[NAME][commit]
    assert set(files) == {"config.json", "editor.safetensors", "README.md"}
    assert str(scoped_folder.parent).encode() not in b"".join(files.values())
    assert scoped_editor.config["training"]["train"].encode() not in b"".join(files.values())
    header = ModelCard(files["README.md"].decode()).data
    assert header.library_name == "mend_jax" and "model-editing" in header.tags

    hub.commits[NAME]["b2" * 20] = files | {"editor.bin": b"pickled", "run.py": b"print(1)"}
    base = scoped_editor.base
    newest, pinned = (mj.load_editor(n, base) for n in (NAME, name))
    assert newest.origin == f"{NAME}@{'b2' * 20}" and pinned.origin == name
    assert not [path for path in hub.asked if path.endswith((".bin", ".py"))]
    assert_equal(pinned.state, scoped_editor.state)
    assert prompts(pinned) == prompts(scoped_editor)

    with pytest.raises(EditorError, match=f"'{NAME}@never' is no folder here, and the .* hub did"):
        mj.load_editor(f"{NAME}@never", base)
    with pytest.raises(EditorError, match="'nobody/nothing' is no folder here"):
        mj.load_editor("nobody/nothing", base)


def test_from_the_cache_and_its_commit_in_the_results(
    cache: Path, scoped_folder: Path, scoped_editor: SavedEditor, tiny_files, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """Without a network, by every command; what was damaged in the cache is refused."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    there = lay_out(cache, NAME, scoped_folder)
    model = mj.open(str(tiny_files.model), editor=NAME)
    assert model.saved.origin == f"{NAME}@{there.name}"
    out, records = tmp_path / "scores", tiny_files.validation
    asked = ("--records", records, "--limit", 4, "--longest", 24, "--out", out)
    done = typed("mend-jax", "evaluate", "--editor", NAME, *asked)
    assert done.code == 0, done.error
    said = json.loads((out / "results.json").read_text())["config"]["editor"]
    assert said == f"{NAME}@{there.name}"
    (there / "config.json").write_text((scoped_folder / "config.json").read_text() + " ")
    config = json.loads((there / "config.json").read_text())
    (there / "config.json").write_text(json.dumps(config | {"sites": config["sites"][:1]}))
    with pytest.raises(EditorError, match="its checksum is another than when it was saved"):
        mj.open(str(tiny_files.model), editor=NAME)


def test_a_folder_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A slip in a path is no question to the hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for slip in ("runs/scopd", Path("somebody/an-editor"), "./somebody/an-editor"):
        with pytest.raises(EditorError, match="no editor here"):
            mj.load_editor(slip)
    done = typed("mend-jax", "edit", "--editor", "runs/scopd", "--prompt", "a", "--target", "b")
    assert done.code == 1 and "neither a directory, nor one of smollm2-135m" in done.error


def test_what_is_not_published(hub: SmallHub, scoped_folder: Path, tmp_path: Path):
    for wrong in ("an-editor", "a/b@main", "a/b/c", "../a"):
        with pytest.raises(ExportError, match="published as user/name"):
            mj.publish_editor(scoped_folder, wrong)
    damaged = tmp_path / "damaged"
    shutil.copytree(scoped_folder, damaged)
    path = damaged / "editor.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(EditorError):
        mj.publish_editor(damaged, NAME)
    assert not hub.commits
    slip = typed("mend-jax", "publish", "--editor", scoped_folder, "--name", "an-editor")
    assert slip.code == 1 and "published as user/name" in slip.error
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ExportError, match=f"hub did not take '{NAME}': .*"):
        mj.publish_editor(scoped_folder, NAME)
