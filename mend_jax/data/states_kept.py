"""The kept states of all streamed trunks: what there is, and how it is let go.

`trunk_stream` makes the files, each set of states with a note of what it is of.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from mend_jax.data.states_index import read_index
from mend_jax.files import cache_folder, read_json

NOTE = "made_by.json"
"""Beside the states that one base's stages made."""


class Kept(NamedTuple):
    """The states of one set of texts.

    base: its name; empty if no note says it. stages: so many of its stages made them. texts: 0 if
    the index is missing or of no use, as after a run that was killed. bytes: on the disk. used:
    when they were last made or taken, in seconds since 1970.
    """

    base: str
    stages: int
    dtypes: tuple[str, ...]
    texts: int
    bytes: int
    used: float
    stem: Path

    @property
    def files(self) -> list[Path]:
        """All but the lock, which others may be waiting for."""
        beside = self.stem.parent.glob(f"{self.stem.name}.*")
        return [path for path in beside if path.suffix != ".lock"]


def all_kept() -> list[Kept]:
    """Every set of states in the cache folder, those that were used last first."""
    folder = cache_folder() / "trunk"
    stems = {path.with_suffix("") for path in folder.glob("*/*") if path.suffix in _OURS}
    return sorted(map(_kept, stems), key=lambda one: -one.used)


_OURS = (".states", ".index", ".draft")


def let_go_of(kept: Kept) -> bool:
    """Deletes the files, unless a run is making them; whether it did."""
    try:
        with FileLock(kept.stem.with_suffix(".lock"), timeout=0):
            for path in kept.files:
                path.unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def _kept(stem: Path) -> Kept:
    said = _note_of(stem.parent)
    states = [path.stat() for suffix in _OURS if (path := stem.with_suffix(suffix)).exists()]
    whole = stem.with_suffix(".states").exists()
    places = read_index(stem.with_suffix(".index"), stem.parent.name)[0] if whole else {}
    return Kept(
        str(said.get("name", "")), int(said.get("stages", [0])[0]),
        tuple(map(str, said.get("dtypes", ()))), len(places),
        sum(state.st_size for state in states),
        max((state.st_mtime for state in states), default=0.0), stem,
    )  # fmt: skip


def _note_of(folder: Path) -> Mapping[str, Any]:
    """What is noted beside states; nothing, if that is missing or damaged."""
    try:
        said = read_json(folder / NOTE, ValueError)
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
