"""A trained editor for others, on the Hugging Face hub: what is published, and the publishing.

    mj.publish_editor("runs/scoped", "user/name")        # "user/name@commit"
    mj.open("smollm2-135m", editor="user/name@commit")   # anywhere

An editor on the hub is data: its arrays as safetensors, its config, its scores, a model card. What
others get has no paths of this machine, and checksums by which damage is seen.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Unpack

from mend_jax.exports.card import hub_id
from mend_jax.exports.folder import ExportError
from mend_jax.files import json_checksum, parse_json, write_text
from mend_jax.models.registry import Base
from mend_jax.saved.directory import Opening, SavedEditor, load_editor
from mend_jax.saved.place import FILES, NAME, hub_errors, reason_of

PATHS = ("train", "validation", "locality", "out")
"""Options of a training that are paths: of these, the last name is kept."""
AWAY = "packed:"
"""What is put before it, since it is no path any more."""


def publish_editor(
    directory: str | Path,
    name: str,
    base: Base | str | None = None,
    private: bool = False,
    **how: Unpack[Opening],
) -> str:
    """Uploads an editor to the hub, in one commit. `hf auth login` comes first.

    Args:
      directory: what `save_editor` wrote; a results.json there becomes the card's table.
      name: user/name; made there, if there is no such repository.
      base, how: as `load_editor` takes them: the editor is opened first, on the base that it was
        made for.

    Returns:
      user/name@commit, as `open` and `load_editor` take it.

    Raises:
      EditorError: as `load_editor`. ExportError: no name of the hub; the hub does not take it.
    """
    check_name(name)
    saved = load_editor(Path(directory), base, **how)
    import huggingface_hub  # slow to import

    with tempfile.TemporaryDirectory() as draft:
        write_published(saved, Path(directory), Path(draft), name)
        try:
            hub = huggingface_hub.HfApi()
            hub.create_repo(name, private=private, exist_ok=True)
            done = hub.upload_folder(
                repo_id=name, folder_path=draft, allow_patterns=list(FILES),
                commit_message="An editor of mend_jax",
            )  # fmt: skip
        except hub_errors() as error:
            raise ExportError(
                f"the Hugging Face hub did not take {name!r}: {reason_of(error)}\nCheck the "
                "network, and that this is yours to write (`hf auth login`)"
            ) from error
    return f"{name}@{done.oid}"


def check_name(name: str) -> None:
    """Raises ExportError for what is no name that an editor can be published by."""
    there = NAME.fullmatch(name)
    if there is None or there["revision"]:
        raise ExportError(f"{name!r}: an editor is published as user/name")


def write_published(saved: SavedEditor, directory: Path, out: Path, name: str) -> None:
    """Writes the files that are published: the arrays as they are, the rest without paths."""
    shutil.copyfile(directory / "editor.safetensors", out / "editor.safetensors")
    base = saved.config["base"]
    known = {k: v for k, v in saved.config.items() if k != "checksum"}
    known |= {"training": without_paths(saved.config.get("training", {}))}
    known |= {"base": Path(base).name if Path(base).exists() else base}
    config = known | {"checksum": json_checksum(known)}
    write_text(out / "config.json", json.dumps(config, indent=1) + "\n")
    results = results_of(directory)
    if results:
        write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(out / "README.md", _card(config, results, name))


def results_of(directory: Path) -> dict[str, Any]:
    """What results.json of an editor's directory says, without paths; nothing, without one.

    Raises:
      ExportError: it is damaged.
    """
    path = directory / "results.json"
    if not path.is_file():
        return {}
    found = parse_json(path.read_text(encoding="utf-8"), path, ExportError)
    if not isinstance(found, dict) or not isinstance(found.get("metrics"), dict):
        raise ExportError(f"{path}: not the results of a run")
    found["config"] = without_paths(found.get("config", {}))
    found["dataset"] = re.sub(r"\S*/", "", found.get("dataset", ""))
    return found


def without_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without the folders of their paths."""
    return {
        key: AWAY + Path(value).name.removeprefix(AWAY)
        if key in PATHS and isinstance(value, str) else value
        for key, value in options.items()
    }  # fmt: skip


def _card(config: Mapping[str, Any], results: Mapping[str, Any], name: str) -> str:
    """README.md, with the header that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    base, scores = config["base"], _known_scores(results)
    about, protocol = results.get("dataset", ""), results.get("protocol", "")
    header = ModelCardData(
        base_model=hub_id(base),
        library_name="mend_jax",
        tags=["model-editing", "mend-jax"],
        model_name=name.partition("/")[2] if scores else None,
        eval_results=[
            EvalResult("text-generation", "edits", about, key, float(x["value"]), metric_name=key)
            for key, x in scores.items()
        ]
        or None,
        base_model_relation="adapter" if hub_id(base) else None,
    ).to_yaml()
    if "scoped" in config:
        usage = (
            f'model = mj.open("{base}", editor="{name}")\n'
            'edited = mj.tell(model, "The capital of France is", "Rome")'
        )
    else:
        usage = f'saved = mj.load_editor("{name}", "{base}")'
    parts = [
        f"# An editor for {base}",
        f"A trained editor (`{config['editor']}`) of mend_jax: it makes edits of `{base}`, and "
        "refuses any other base.",
        f"```python\nimport mend_jax as mj\n\n{usage}\n```",
    ]
    if scores:
        rows = [f"| {key} | {x['value']:.4g} ({x['low']:.4g} to {x['high']:.4g}) |"
                for key, x in scores.items()]  # fmt: skip
        parts.append(f"Scored on {results.get('n')} edits, {about}; protocol: {protocol}.")
        parts.append("\n".join(["| measured | value (95 % interval) |", "|---|---|", *rows]))
    return f"---\n{header}\n---\n\n" + "\n\n".join(parts) + "\n"


def _known_scores(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The metrics that have a value."""
    found = results.get("metrics", {})
    return {k: x for k, x in found.items() if x["value"] is not None and isfinite(x["value"])}
