"""Many edits held together as one value, of a size that does not grow.

How they are held is a `Holding`: five pure functions over a value of fixed capacity, so that one
compiled program serves it however many edits it holds. `summed` adds the edits up, `solved` takes
their crosstalk away; others are one file each.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from mend_jax.editors.base import Editor, EditorState
from mend_jax.example import Example, Pair
from mend_jax.factors import Dense, Edit, Factors


class Holding(NamedTuple):
    """A way to hold edits.

    keep(params, pair, edit) -> kept: an edit that was made of `pair`, with what has to be known of
      it beside the others.
    hold(kept, capacity) -> held: those along the leading axis of `kept` (there may be none), in
      the first slots of so many.
    add(held, kept) -> held: one more, in the first slot that is free; into a full value, nothing,
      which outside of `jit` is an error. In slots, `with_room` makes room before.
    remove(held, slot) -> held: as if it had never been added, but for rounding.
    list(held) -> bool[capacity]: the slots that hold an edit.
    apply(held) -> edit: what all of them are together, for `Editor.apply`.
    config: its name, under "at_once" (for saved editors).
    """

    keep: Callable[[PyTree, Pair, PyTree], PyTree]
    hold: Callable[[PyTree, int], PyTree]
    add: Callable[[PyTree, PyTree], PyTree]
    remove: Callable[[PyTree, Int[Array, ""] | int], PyTree]
    list: Callable[[PyTree], Bool[Array, "capacity"]]
    apply: Callable[[PyTree], Edit]
    config: dict[str, Any]


class Slots(NamedTuple):
    """Kept edits side by side, and which of the slots are in use; the others hold zeros."""

    kept: PyTree
    used: Bool[Array, "capacity"]


def slots(kept: PyTree, n: int, capacity: int) -> Slots:
    """n edits along a leading axis, in the first of `capacity` slots.

    Raises:
      ValueError: there are more edits than slots.
    """
    if n > capacity:
        raise ValueError(f"{n} edits are more than a capacity of {capacity}")

    def filled(x: Array) -> Array:
        room = jnp.zeros((capacity - n, *x.shape[1:]), x.dtype)
        return jnp.concatenate([x, room]) if n < capacity else x

    return Slots(jax.tree.map(filled, kept), jnp.arange(capacity) < n)


def put(held: Slots, kept: PyTree) -> Slots:
    """One more in the first free slot. If all are in use, nothing, within `jit`: there nobody can
    know (`with_room`).

    Raises:
      ValueError: outside of `jit`, all are in use.
    """
    slot, full = jnp.argmin(held.used), jnp.all(held.used)
    if not isinstance(full, jax.core.Tracer) and full:
        raise ValueError(
            f"all {len(held.used)} slots are in use, and nothing was added: make room for one more "
            "(editors.held.with_room)"
        )

    def placed(room: Array, x: Array) -> Array:
        return room.at[slot].set(jnp.where(full, room[slot], x.astype(room.dtype)))

    return Slots(jax.tree.map(placed, held.kept, kept), held.used.at[slot].set(True))


def with_room(held: Slots, n: int) -> Slots:
    """With free slots for n edits more: as it is or, if too few are free, with twice as many slots,
    or four times, and so on. Not within `jit`, where sizes are fixed."""
    used, capacity = int(np.sum(np.asarray(held.used))), len(held.used)
    wanted = max(capacity, 1)
    while wanted < used + n:
        wanted *= 2
    return held if wanted == capacity else more_slots(held, wanted - capacity)


@partial(jax.jit, static_argnames="more")
def more_slots(held: Slots, more: int) -> Slots:
    """With so many more slots, all free."""
    return jax.tree.map(lambda x: jnp.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)), held)


def take_out(held: Slots, slot: Int[Array, ""] | int) -> Slots:
    """The slot is free, and holds zeros."""
    emptied = jax.tree.map(lambda room: room.at[slot].set(0), held.kept)
    return Slots(emptied, held.used.at[slot].set(False))


def count(kept: PyTree) -> int:
    """Edits along the leading axis."""
    return len(jax.tree.leaves(kept)[0])


def none_like(kept: PyTree) -> PyTree:
    """No edits, each like `kept` (arrays or their shapes): what an empty value is held of."""
    return jax.tree.map(lambda x: jnp.zeros((0, *x.shape), x.dtype), kept)


def check_weights(edit: PyTree) -> None:
    """Raises ValueError unless the edit is a change of weights, which alone can be held so."""
    weights = isinstance(edit, Mapping) and bool(edit)
    if not (weights and all(isinstance(part, Factors | Dense) for part in edit.values())):
        raise ValueError("the editor changes no weights: its edits cannot be added")


def held_together(editor: Editor, holding: Holding) -> Editor:
    """The editor that makes each of the k edits of an example alone, and holds them together.

    The paper makes k edits at once in two readings. Its text adds k edits, each made from the
    gradient of its own pair: this editor, with `summed()`. Its code makes one edit from the
    gradient of the mean loss of all k, which is what any editor does with an example of k edit
    pairs. The outer and locality pairs of an example stand in the order of its edits, as many for
    each.
    """

    def init(key: PRNGKeyArray, params: PyTree, example: Example) -> EditorState:
        each = jax.eval_shape(lambda x: jax.tree.map(lambda y: y[0], alone(_batched(x))), example)
        return editor.init(key, params, each)

    def calibrate(state: EditorState, params: PyTree, examples: Example) -> PyTree:
        return editor.calibrate(state, params, alone(examples))

    def kept(params: PyTree, each: Example, edits: Edit) -> PyTree:
        return jax.vmap(holding.keep, (None, 0, 0))(params, each.edit, edits)

    def joined(kept: PyTree) -> Edit:
        return holding.apply(holding.hold(kept, count(kept)))

    def edit(state: EditorState, params: PyTree, example: Example) -> Edit:
        each = alone(_batched(example))
        edits = jax.vmap(editor.edit, (None, None, 0))(state, params, each)
        return joined(kept(params, each, edits))

    def observe(state: EditorState, params: PyTree, examples: Example) -> tuple[PyTree, Edit]:
        each = alone(examples)
        stats, edits = editor.observe(state, params, each)
        batch = len(examples.edit.labels)
        apart = jax.tree.map(
            lambda x: x.reshape(batch, -1, *x.shape[1:]), kept(params, each, edits)
        )
        return stats, jax.vmap(joined)(apart)

    return Editor(
        init, calibrate, edit, observe, editor.apply, editor.config | holding.config
    )


def alone(examples: Example) -> Example:
    """Leading axes [batch, k p] of each kind of pair as [batch k, p]."""
    k = examples.edit.labels.shape[1]

    def apart(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0] * k, x.shape[1] // k, *x.shape[2:])

    return jax.tree.map(apart, examples)


def _batched(example: Example) -> Example:
    """With a leading axis of one."""
    return jax.tree.map(lambda x: x[None], example)
