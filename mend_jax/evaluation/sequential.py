"""Edits one after another: each is made on the model that all before it have edited.

The edits so far are one edit of fixed size, so that one compiled program makes the whole sequence:
the rows of all edits side by side or, where these are many, one float32 matrix a site.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from mend_jax.data.batches import Shapes, TokenRecord
from mend_jax.data.trunk_cache import TrunkCache
from mend_jax.editors.base import Editor, EditorState
from mend_jax.evaluation.metrics import Scores, mean, summarise
from mend_jax.evaluation.teacher_forced import collate_records, kept, make_scorer, score, widths
from mend_jax.example import Example
from mend_jax.factors import Dense, Edit, Factors, is_many, norm, shape_of, to_dense
from mend_jax.objectives import Outputs, after_trunk, answered, outputs_after

EditorOver = Callable[[Outputs], Editor]
"""Builds an editor over the outputs of the base, or of what earlier edits made of it."""


class Sequenced(NamedTuple):
    """The edits so far, of a size that does not grow, and how many they are."""

    edit: dict[str, Factors | Dense]
    made: Int[Array, ""]


def empty(one: Edit, capacity: int) -> Sequenced:
    """Room for `capacity` edits like `one` (arrays, or their shapes)."""

    def room(part: Factors | Dense) -> Factors | Dense:
        d_in, d_out = shape_of(part)
        if isinstance(part, Dense):
            return Dense(jnp.zeros((d_in, d_out)))
        rows = capacity * part.u.shape[-2]
        if is_many(rows, d_in, d_out):
            return Dense(jnp.zeros((d_in, d_out)))
        return Factors(jnp.zeros((rows, d_in)), jnp.zeros((rows, d_out)))

    return Sequenced({site: room(part) for site, part in one.items()}, jnp.zeros((), jnp.int32))


def append(so_far: Sequenced, edit: Edit) -> Sequenced:
    """One edit more. Edits past the capacity of `empty` overwrite the last."""

    def put(room: Factors | Dense, part: Factors | Dense) -> Factors | Dense:
        if isinstance(room, Dense):
            return Dense(room.kernel + to_dense(part))
        assert isinstance(part, Factors)
        at = so_far.made * part.u.shape[-2]
        return Factors(
            *(
                jax.lax.dynamic_update_slice_in_dim(whole, rows.astype(whole.dtype), at, axis=0)
                for whole, rows in zip(room, part, strict=True)
            )
        )

    parts = {site: put(so_far.edit[site], part) for site, part in edit.items()}
    return Sequenced(parts, so_far.made + 1)


class Point(NamedTuple):
    """After so many edits: scores in 0..1, and sizes.

    newest: edit success of each edit as soon as it was made, mean over those since the last point.
    so_far: edit success of all edits until here, now. locality_agreement: of the locality prompts
    of the whole sequence, None without any. norm: Frobenius norm of all edits together, mean over
    sites.
    """

    edits: int
    newest: float
    so_far: float
    locality_agreement: float | None
    norm: float


def edit_in_sequence(
    over: EditorOver,
    outputs: Outputs,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    shapes: Shapes,
    at: Sequence[int],
    cache: TrunkCache | None = None,
    trunk: nn.Module | None = None,
    batch: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Scores, list[Point]]:
    """Makes the edits in order; returns the scores of all after the last, and the curves.

    Args:
      over: builds the editor, e.g. `lambda outputs: mend(outputs.loss, sites)`.
      at: numbers of edits after which all is scored; the last is always scored.
      trunk: run on every example, if its outputs are not cached.
      batch: records scored side by side.

    Raises:
      ValueError: the editor changes no weights, so that its edits cannot be added.
    """
    original, logits = over(outputs), outputs.logits
    width = widths(records)
    total = len(records)

    def example_of(chosen: Sequence[TokenRecord]) -> Example:
        return collate_records([[record] for record in chosen], shapes, width, cache)

    @jax.jit
    def step(
        state: EditorState, params: PyTree, so_far: Sequenced, examples: Example
    ) -> tuple[Sequenced, Float[Array, "outer"]]:
        example = jax.tree.map(lambda x: x[0], after_trunk(trunk, params, examples))
        editor = over(outputs_after(outputs, so_far.edit))
        so_far = append(so_far, editor.edit(state, params, example))
        after = original.apply(state, logits, so_far.edit)
        return so_far, answered(after(params, example.outer), example.outer.labels)

    standing = make_scorer(kept(original), logits, trunk)

    def score_all(edit: Edit) -> Scores:
        return score(standing, EditorState(state, edit), params, records, shapes, cache, batch)

    one: Any = jax.eval_shape(
        lambda params, x: original.edit(
            state, params, jax.tree.map(lambda x: x[0], after_trunk(trunk, params, x))
        ),
        params, example_of(records[:1]),
    )  # fmt: skip
    if not one or not all(isinstance(part, Factors | Dense) for part in one.values()):
        raise ValueError(
            f"the editor {original.config['editor']!r} changes no weights: its edits cannot be "
            "added one after another"
        )
    so_far = empty(one, total)
    points: list[Point] = []
    newest: list[Array] = []
    wanted = sorted({n for n in at if 0 < n < total} | {total})
    for n, record in enumerate(records, 1):
        so_far, success = step(state, params, so_far, example_of([record]))
        newest.append(jnp.mean(success[: len(record.outer)]))  # not waited for
        if n in wanted:
            scores = score_all(so_far.edit)
            points.append(_point(n, newest, scores, so_far.edit))
            newest = []
        progress(n, total)
    return scores, points


def _point(n: int, newest: Sequence[Array], scores: Scores, edit: Edit) -> Point:
    metrics = summarise(scores)
    agreement = metrics.get("locality_agreement")
    return Point(
        n,
        float(jnp.mean(jnp.stack(newest))),
        float(np.mean(mean(scores.success[:n]))),
        agreement.value if agreement else None,
        float(np.mean([norm(part) for part in edit.values()])),
    )
