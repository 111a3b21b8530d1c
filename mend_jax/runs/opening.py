"""How commands open a saved editor."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from jax.sharding import Mesh

from mend_jax.models.memory import Dtype
from mend_jax.models.registry import load
from mend_jax.option_types import ImportPath, accepted_by
from mend_jax.runs.room import parts_to_hold, room_to_edit
from mend_jax.saved.config import read_config
from mend_jax.saved.directory import SavedEditor, load_editor
from mend_jax.saved.place import check_place, find_editor

EditorPlace = Annotated[str, accepted_by(check_place)]
"""A directory, the name of a base that an editor comes with the package for, or a name on the hub;
see `saved.place`."""


@dataclass(frozen=True, kw_only=True)
class TrustOptions:
    """What is taken of a saved editor."""

    trust: ImportPath = ""
    """Import path (package.module:name) of the code that makes this editor, if it has its own."""
    force: bool = False
    """Open the editor although its files, or its base's, are others than when it was saved."""


@dataclass(frozen=True, kw_only=True)
class OpeningOptions(TrustOptions):
    """How a saved editor is opened."""

    dtype: Dtype | None = None
    """Of the base's weights; by default what the editor was trained with."""


def has_room(place: str, options: OpeningOptions, say: Callable[[str], None]) -> bool:
    """Whether there is room for all of the base of the editor at a place; if not, that is said.

    Raises:
      As `open_editor`.
    """
    folder = find_editor(place).folder
    told = read_config(folder, options.force)
    dtype = options.dtype or told["fingerprint"]["dtype"]
    room = room_to_edit(told["base"], dtype, tuple(told["sites"]), folder)
    return parts_to_hold(room, say) == "all"


def open_editor(
    place: str, options: OpeningOptions, mesh: Mesh | None = None, stream: bool = False
) -> SavedEditor:
    """The editor at a place, and its base; to `stream`, an editor over the tail of the base, of
    which no more is loaded.

    Raises:
      EditorError: as `load_editor`. ValueError, WeightsError: as `load`.
    """
    trust, force, dtype = options.trust, options.force, options.dtype
    if not stream:
        return load_editor(place, mesh=mesh, dtype=dtype, trust=trust, force=force)
    told = read_config(find_editor(place).folder, force)
    dtype = dtype or told["fingerprint"]["dtype"]
    base = load(told["base"], None, dtype, None, "tail", tuple(told["sites"]))
    return load_editor(place, base, trust=trust, force=force)
