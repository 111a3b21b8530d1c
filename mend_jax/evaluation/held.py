"""Scores scoped edits while all of them are held: made in small batches, scored in small batches.

Every edit is made on the base alone, whatever is held, and all pairs of all records are asked under
the one held value. Beside what the model answers, it is known which edit acted where.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from mend_jax.data.batches import TokenRecord, collate, shapes_of, shapes_of_edits
from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.held import Slots
from mend_jax.editors.scoped import acting, holding
from mend_jax.evaluation.metrics import Scores
from mend_jax.evaluation.teacher_forced import (
    Batching,
    collate_records,
    kept,
    make_scorer,
    missing,
    score,
    widths,
)
from mend_jax.example import Example
from mend_jax.objectives import Forced, Outputs, after_trunk
from mend_jax.scopes.active import NONE
from mend_jax.scopes.network import Scope


class Holder(NamedTuple):
    """A scoped editor, and what it works over.

    outputs: of the base, or of its tail. trunk: run on every example, unless that is cached.
    """

    editor: Editor
    scope: Scope
    outputs: Outputs
    trunk: nn.Module | None = None
    protocol: Forced = "sequence"


def make_held(
    holder: Holder,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    batching: Batching = Batching(),
) -> Slots:
    """The edits of all records, in as many slots, in their order."""
    shapes, batch = shapes_of_edits([record.edit for record in records]), batching.batch

    def make(state: EditorState, params: PyTree, examples: Example) -> PyTree:
        examples = after_trunk(holder.trunk, params, examples)
        edits: Any = jax.vmap(holder.editor.edit, (None, None, 0))(state, params, examples)
        return jax.tree.map(lambda x: x[:, 0], edits.kept)

    jitted, parts = jax.jit(make), []
    for i in range(0, len(records), batch):
        chosen = records[i : i + batch]
        filled = [*chosen, *[chosen[-1]] * (batch - len(chosen))]
        pair = collate([[record.edit] for record in filled], shapes.edit, batching.cache)
        made = jax.device_get(jitted(state, params, Example(pair, pair, pair)))
        parts.append(jax.tree.map(lambda x, n=len(chosen): x[:n], made))
    together = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *parts)
    held: Slots = holding().hold(together, len(records))
    return held


def score_held(
    holder: Holder,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    batching: Batching = Batching(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Scores records whose edits are held in the first slots, in their order.

    Args:
      state: of the editor, and as `stats` the held edits, as `kept` has them.
      batching: its k is 1. progress: as in `teacher_forced.score`.
    """
    scorer = make_scorer(
        kept(holder.editor), holder.outputs.logits, holder.trunk, protocol=holder.protocol
    )
    scores = score(scorer, state, params, records, batching, progress)
    return scores._replace(**_acting(holder, state, params, records, batching))


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of several groups, one after another."""

    def join(*arrays: np.ndarray) -> np.ndarray:
        if arrays[0].ndim == 1:
            return np.concatenate(arrays)
        width = max(x.shape[1] for x in arrays)
        blank = np.nan if arrays[0].dtype.kind == "f" else 0
        room = [((0, 0), (0, width - x.shape[1])) for x in arrays]
        return np.concatenate(
            [np.pad(x, r, constant_values=blank) for x, r in zip(arrays, room, strict=True)]
        )

    found: Scores = jax.tree.map(join, *parts)
    return found


def _acting(
    holder: Holder,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    batching: Batching,
) -> dict[str, np.ndarray]:
    """Of each pair, whether its own edit acts at the end of its prompt, and whether any does."""
    shapes, width, batch = shapes_of(records), widths(records), batching.batch

    def ask(phi: PyTree, params: PyTree, held: Slots, examples: Example) -> list[Int[Array, "_ _"]]:
        examples = after_trunk(holder.trunk, params, examples)

        def at_end(pair: Any) -> Array:
            which = acting(holder.scope, phi, held, pair.inputs.seen)
            return jnp.take_along_axis(which, pair.inputs.read[:, :1], axis=1)[:, 0]

        return [jax.vmap(at_end)(pair) for pair in (examples.outer, examples.locality)]

    jitted, found = jax.jit(ask), []
    for i in range(0, len(records), batch):
        chosen = records[i : i + batch]
        filled = [[record] for record in (*chosen, *[chosen[-1]] * (batch - len(chosen)))]
        examples = collate_records(filled, shapes, width, batching.cache)
        slots = jax.device_get(jitted(state.phi.phi.scope, params, state.stats, examples))
        found.append([x[: len(chosen)] for x in slots])
    outer, locality = (np.concatenate(x) for x in zip(*found, strict=True))
    own = np.arange(len(records))[:, None]
    no_outer, no_locality = missing(records)
    return {
        "found": np.where(no_outer, np.nan, outer == own),
        "wrong": np.where(no_outer, np.nan, (outer != own) & (outer != NONE)),
        "fired": np.where(no_locality, np.nan, locality != NONE),
    }
