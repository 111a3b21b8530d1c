"""Edits one after another: each is made on the model that all before it have edited.

The edits so far are one held value of fixed size (`editors.held`), so that one compiled program
makes the whole sequence.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from mend_jax.data.batches import shapes_of
from mend_jax.data.token_records import TokenRecord
from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.held import Holding, none_like
from mend_jax.editors.summed import summed
from mend_jax.evaluation.collating import collate_records, widths
from mend_jax.evaluation.metrics import summarise
from mend_jax.evaluation.scores import Scores, mean
from mend_jax.evaluation.teacher_forced import Batching, kept, make_scorer, score
from mend_jax.example import Example
from mend_jax.factors import Edit, norm
from mend_jax.objectives import Outputs, after_trunk, answered, outputs_after


class Sequential(NamedTuple):
    """An editor that is to edit again and again, and when all of its edits are scored.

    over(outputs): builds the editor over the outputs of the base, or of what earlier edits made of
      it, e.g. `lambda outputs: mend(outputs.loss, sites)`. outputs: of the base, or of its tail.
    at: numbers of edits; after the last edit all is scored in any case.
    trunk: run on every example, if its outputs are not cached.
    holding: how the edits are held together.
    """

    over: Callable[[Outputs], Editor]
    outputs: Outputs
    at: Sequence[int] = ()
    trunk: nn.Module | None = None
    holding: Holding = summed()


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
    sequential: Sequential,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    batching: Batching = Batching(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Scores, list[Point]]:
    """Makes the edits in order; returns the scores of all after the last, and the curves.

    Args:
      batching: its k is 1.

    Raises:
      ValueError: the editor changes no weights, so that its edits cannot be added.
    """
    over, outputs, at, trunk, holding = sequential
    editor, shapes = over(outputs), batching.shapes or shapes_of(records)
    width, total = widths(records), len(records)
    step = _make_step(sequential)
    standing = make_scorer(kept(editor), outputs.logits, trunk)
    batching = batching._replace(shapes=shapes)

    def example_of(record: TokenRecord) -> Example:
        return collate_records([[record]], shapes, width, batching.cache)

    def first(params: PyTree, examples: Example) -> PyTree:
        example = jax.tree.map(lambda x: x[0], after_trunk(trunk, params, examples))
        edit = editor.edit(state, params, example)
        return holding.keep(params, example.edit, edit)

    one = jax.eval_shape(first, params, example_of(records[0]))
    held = holding.hold(none_like(one), total)
    points: list[Point] = []
    newest: list[Array] = []
    wanted = sorted({n for n in at if 0 < n < total} | {total})
    for n, record in enumerate(records, 1):
        held, success = step(state, params, held, example_of(record))
        newest.append(jnp.mean(success[: len(record.outer)]))  # not waited for
        if n in wanted:
            edit = holding.apply(held)
            scores = score(standing, EditorState(state, edit), params, records, batching)
            points.append(_point(n, newest, scores, edit))
            newest = []
        progress(n, total)
    return scores, points


def _make_step(sequential: Sequential) -> Callable[..., tuple[PyTree, Float[Array, "outer"]]]:
    """`step(state, params, held, examples)`, jitted: one edit more, and how its own outer pairs are
    answered then. The held value is donated."""
    over, outputs, _, trunk, holding = sequential
    original = over(outputs)

    def step(
        state: EditorState, params: PyTree, held: PyTree, examples: Example
    ) -> tuple[PyTree, Float[Array, "outer"]]:
        example = jax.tree.map(lambda x: x[0], after_trunk(trunk, params, examples))
        editor = over(outputs_after(outputs, holding.apply(held)))
        edit = editor.edit(state, params, example)
        held = holding.add(held, holding.keep(params, example.edit, edit))
        after = original.apply(state, outputs.logits, holding.apply(held))
        return held, answered(after(params, example.outer), example.outer.labels)

    return jax.jit(step, donate_argnums=2)


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
