"""The checksums of a model's tensors, kept for as long as its files stay as they are.

A file is known again by its path, its size and the time of its last change; then nothing of it has
to be read to say what is in it. They are kept in `cache_folder()/checksums`, one JSON file a model.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mend_jax.files import cache_folder, json_checksum, parse_json, write_text


def known_checksums(files: Sequence[Path]) -> dict[str, str]:
    """What was remembered of these files; empty if one has changed since, or the note is damaged,
    or there is none."""
    path, there = _note(files), _states(files)
    try:
        said = parse_json(path.read_text(encoding="utf-8"), path, ValueError)
        found = said["checksums"]
        sound = said["checksum"] == json_checksum([there, found])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(found) if sound else {}


def remember_checksums(files: Sequence[Path], found: Mapping[str, str]) -> None:
    """Notes the checksums of the tensors in these files.

    Raises:
      OSError: it cannot be written.
    """
    note = {"checksums": dict(found), "checksum": json_checksum([_states(files), dict(found)])}
    write_text(_note(files), json.dumps(note, indent=1) + "\n")


def _states(files: Sequence[Path]) -> list[list[str | int]]:
    """Path, size and time of the last change in nanoseconds, of each file."""
    paths = [path.resolve() for path in files]
    return [[str(path), (stat := path.stat()).st_size, stat.st_mtime_ns] for path in paths]


def _note(files: Sequence[Path]) -> Path:
    """Where those of these files are noted."""
    name = json_checksum([str(path.resolve()) for path in files])
    return cache_folder() / "checksums" / f"{name}.json"
