"""The slots that scoped edits are held in: their shapes, and how an edit is written into one."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mend_jax.data.bucketing import ANSWERS
from mend_jax.editors.scoped import ScopedEdit
from mend_jax.factors import Factors
from mend_jax.scopes.active import NONE
from mend_jax.scopes.network import Keys

SIDE_BY_SIDE = 64
"""Edits that are read at a time; a power of two."""


def room_for(n: int) -> int:
    """Slots for n edits and one more: a multiple of a quarter of a power of two, and of
    `SIDE_BY_SIDE`, as many as are read at a time."""
    step = max(SIDE_BY_SIDE, 1 << max(n.bit_length() - 3, 0))
    return -(-(n + 1) // step) * step


def slot_of(params: PyTree, sites: Sequence[str], scoped: Mapping[str, Any]) -> ScopedEdit:
    """Shapes and dtypes of one slot, abstract: each site with all rows, the longest target.

    Args:
      params: of the base, or their shapes. scoped: that part of the editor's config.
    """
    rows, scope = scoped["rows"], scoped["scope"]

    def array(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    def site(name: str) -> Factors:
        layer = params
        for part in name.split("/"):
            layer = layer[part]
        return Factors(*(array(rows, d, dtype=jnp.float16) for d in layer["kernel"].shape))

    keys = Keys(*(array(scope[name]) for name in Keys._fields))
    target = array(ANSWERS[-1], dtype=jnp.int32)
    return ScopedEdit({name: site(name) for name in sites}, keys, target)


def blank(slot: ScopedEdit, capacity: int) -> ScopedEdit:
    """So many slots without edits: no rows, no target."""

    def empty(x: Any) -> np.ndarray:
        room = np.zeros((capacity, *x.shape), x.dtype)  # costs nothing until it is written
        return np.full_like(room, NONE) if x.dtype == jnp.int32 else room

    made: ScopedEdit = jax.tree.map(empty, slot)
    return made


def fill(kept: ScopedEdit, room: ScopedEdit, n: int) -> str:
    """Writes an edit into slot n, whose other rows stay as they are; or says why it cannot."""
    same = kept.rows.keys() == room.rows.keys()
    places = jax.tree.leaves(room) if same else []
    pairs = list(zip(places, jax.tree.leaves(kept), strict=False))
    if not pairs or any(x.shape[1:] != y.shape[2:] or len(x) > y.shape[1] for y, x in pairs):
        return "its arrays are of other shapes, or sites, than this editor's"
    for place, x in pairs:
        place[n, : len(x)] = x
    return ""
