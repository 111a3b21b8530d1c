"""Whether there is room for all of a base beside what a run makes: where not, its tail is held."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
from flax.traverse_util import flatten_dict

from mend_jax.models.memory import Dtype, device_bytes, free_bytes, stored_shapes
from mend_jax.models.registry import described, shapes_of
from mend_jax.models.stages import sites_of
from mend_jax.models.tail import Parts, shapes_of_tail
from mend_jax.sites import Sites
from mend_jax.weights import open_weights

FILLED = 0.9
"""Of the memory that is free; the rest is for activations, states and programs."""


class Room(NamedTuple):
    """Bytes of a base's weights, and of what is made beside them; tail: whether its tail could be
    held alone."""

    weights: float
    beside: float
    tail: bool

    def within(self, free: float | None) -> bool:
        """Whether so many free bytes are enough; None: that is not known, and they are."""
        return free is None or self.weights + self.beside <= FILLED * free


Shape = tuple[int, ...]


def room_of(
    name: str, dtype: Dtype, sites: Sites | None, beside: Callable[[list[Shape]], float]
) -> Room:
    """What a base takes, of which nothing is read but the headers of its files.

    Args:
      name, dtype, sites: as `load` takes them. beside: bytes, of the shapes of the edited kernels.

    Raises:
      WeightsError, ConfigError, ValueError, SiteError: as `load`.
    """
    family, config, expected, _ = described(open_weights(name), name)
    model, shapes = family.model(config), shapes_of(expected)
    edited = sites_of(model, family.default_sites(config) if sites is None else sites)
    kernels = flatten_dict(shapes, sep="/")
    try:
        shapes_of_tail(model, edited, name)
    except ValueError:
        tail = False
    else:
        tail = True
    at = [kernels[f"{site}/kernel"].shape for site in edited]
    return Room(device_bytes(stored_shapes(shapes, dtype)), beside(at), tail)


def room_to_edit(name: str, dtype: Dtype, sites: tuple[str, ...], folder: Path) -> Room:
    """Of a saved editor and its base: the editor's file is read into memory, and then to the
    device."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return room_of(name, dtype, sites, lambda at: 2.0 * size)


def parts_to_hold(room: Room, say: Callable[[str], None]) -> Parts:
    """All of the base; or its tail, where all has no room: that is said."""
    free = free_bytes(jax.local_devices()[0])
    if room.within(free) or not room.tail:
        return "all"
    assert free is not None
    say(
        f"the base takes {room.weights / 1e9:.3g} GB, what is made beside it "
        f"{room.beside / 1e9:.2g}, and {free / 1e9:.3g} are free: only the edited layers and those "
        "above are held, as with --stream"
    )
    return "tail"
