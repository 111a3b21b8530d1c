"""The config.json of a saved editor: read, and its fields checked, in this one place."""

import warnings
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from mend_jax.files import json_checksum, read_json
from mend_jax.saved.arrays import EditorError
from mend_jax.typed import checked


class Fingerprint(TypedDict):
    """What an editor knows of its base; see `models/fingerprint.py`."""

    dimensions: str
    dtype: Literal["float32", "bfloat16", "int8"]
    kernels: dict[str, list[float]]
    checksums: NotRequired[dict[str, str]]


class EditorConfig(TypedDict):
    """All that `save_editor` writes. ends_turns: whether it was trained on chats, whose answers are
    all of the model's turn. checksum: of all the rest."""

    editor: str
    options: dict[str, Any]
    sites: list[str]
    base: str
    fingerprint: Fingerprint
    shapes: dict[str, list[int]]
    checksums: NotRequired[dict[str, str]]
    at_once: NotRequired[str]
    ends_turns: NotRequired[bool]
    training: NotRequired[dict[str, Any]]
    checksum: NotRequired[str]


_OF_CHECKSUMS = ("checksum", "checksums")


def read_config(directory: Path, force: bool = False) -> dict[str, Any]:
    """The editor's config.json.

    Args:
      force: take one that was changed since it was saved, with a warning.

    Raises:
      EditorError: there is none, it is not an editor's, or it was changed or damaged.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise EditorError(f"{directory}: no editor here (config.json is missing)")
    config = read_json(path, EditorError)
    if not isinstance(config, dict) or "editor" not in config:
        raise EditorError(f"{path}: not the config of an editor")
    if not isinstance(config.get("fingerprint", {}), dict):
        raise EditorError(f"{path}: the base's fingerprint is of an older version: train again")
    checked(EditorConfig, config, f"{path}: not the config of an editor", EditorError)
    changed = _changed(config)
    if changed and not force:
        raise EditorError(
            f"{path}: {changed}. If that was done on purpose, say so: load_editor(..., "
            "force=True), --force in a command"
        )
    if changed:
        warnings.warn(f"{path}: {changed}", stacklevel=3)
    elif not any(key in config for key in _OF_CHECKSUMS):
        warnings.warn(
            f"{path}: this editor was saved without checksums, so damage to it would not be "
            "noticed: save it again (`save_editor`)",
            stacklevel=3,
        )
    return config


def _changed(config: dict[str, Any]) -> str:
    """How the config is not as it was saved, in words; empty if it is, or had no checksums."""
    known = config["fingerprint"].keys()
    if not any(key in config for key in _OF_CHECKSUMS) and "checksums" not in known:
        odd = config.keys() - EditorConfig.__annotations__.keys()
        odd |= known - Fingerprint.__annotations__.keys()
        return f"unknown keys: {', '.join(sorted(odd))}" if odd else ""
    rest = {key: value for key, value in config.items() if key != "checksum"}
    if config.get("checksum") == json_checksum(rest) and "checksums" in config:
        return ""
    return "its checksum is another than when it was saved: the file was changed, or is damaged"
