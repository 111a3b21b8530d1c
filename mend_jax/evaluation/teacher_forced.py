"""Scores an editor on held-out edits under teacher forcing: every edit alone, or k at once.

Each edit is made on the unedited base and evaluated beside others, vmapped over shared weights; a
score does not depend on who stands beside whom. What they mean: `mend_jax.evaluation.metrics`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.lax import with_sharding_constraint as constrain
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from mend_jax.data.batches import Shapes, shapes_of
from mend_jax.data.bucketing import lots, overlapped
from mend_jax.data.token_records import TokenRecord, check_enough, grouped
from mend_jax.data.trunk_cache import TrunkCache
from mend_jax.editors.base import Editor, EditorState
from mend_jax.evaluation.collating import as_scores, collate_records, widths
from mend_jax.evaluation.scores import Scores
from mend_jax.example import Example
from mend_jax.models.generate import LOST, prediction
from mend_jax.objectives import (
    IGNORED,
    Forced,
    LogitsFn,
    after_trunk,
    answered,
    kl_divergence,
    negative_log_likelihood,
)
from mend_jax.parallel import replicated, split_examples

Scorer = Callable[[EditorState, PyTree, Example], dict[str, Array]]


class Batching(NamedTuple):
    """How held-out records are put through a model; scores do not depend on it.

    shapes: to pad to; None: those of the records, in a few lots of like lengths if that is less
      work, each compiled on its own.
    cache: the trunk's outputs, if they are kept. batch: edits at a time (the last batch is filled
    up). k: records that are edited at once, as one edit, and scored under it; they are taken in
    order, and a rest of fewer than k is left out.
    """

    shapes: Shapes | None = None
    cache: TrunkCache | None = None
    batch: int = 8
    k: int = 1


PROGRAM = 8000
"""What compiling a scorer takes, in tokens of the longest pair of every edit that it scores; of
SmolLM2 on two CPU cores."""


def judged(
    logits: LogitsFn,
    after: LogitsFn,
    params: PyTree,
    example: Example,
    protocol: Forced = "sequence",
) -> dict[str, Float[Array, "..."]]:
    """What an edit has done to the outer and locality pairs of one example.

    Args:
      logits, after: of the base, and of the edited model.
      example: its outer and locality pairs are padded to the same shape, so that one pass of each
        model is over both.

    Returns:
      the fields of `Scores` but `kinds`: one value for each pair, and edit_loss.
    """
    outer, labels = example.outer.labels, example.locality.labels
    pairs = jax.tree.map(lambda *x: jnp.concatenate(x), example.outer, example.locality)
    said_before, before = jnp.split(logits(params, pairs), [len(outer)])
    said, moved = jnp.split(after(params, pairs), [len(outer)])
    scored = labels != IGNORED
    tokens = jnp.sum(scored, axis=-1)
    weights = tokens.astype(jnp.float32)
    said_after = prediction(moved)
    same = (prediction(before) == said_after) & (said_after != LOST)
    kl = jnp.where(scored, kl_divergence(before, moved), 0.0)
    nll = jax.vmap(negative_log_likelihood)
    return {
        "success": answered(said, outer, protocol),
        "success_before": answered(said_before, outer, protocol),
        "agreement": jnp.all(same | ~scored, axis=-1),
        "kl": jnp.sum(kl, axis=-1) / jnp.maximum(weights, 1.0),
        "accuracy": answered(moved, labels, protocol),
        "accuracy_before": answered(before, labels, protocol),
        "nll": nll(moved, labels) * weights,
        "nll_before": nll(before, labels) * weights,
        "tokens": tokens,
        "edit_loss": negative_log_likelihood(said, outer),
    }


def make_scorer(
    editor: Editor,
    logits: LogitsFn,
    trunk: nn.Module | None = None,
    mesh: Mesh | None = None,
    protocol: Forced = "sequence",
) -> Scorer:
    """`scorer(state, params, examples)`, jitted: independent edits, vmapped over shared weights.

    With a mesh the edits are split over "data" if their number divides; every process gets all
    scores.
    """

    def one(state: EditorState, params: PyTree, example: Example) -> dict[str, Array]:
        edit = editor.edit(state, params, example)
        return judged(logits, editor.apply(state, logits, edit), params, example, protocol)

    def scorer(state: EditorState, params: PyTree, examples: Example) -> dict[str, Array]:
        if mesh is not None and len(examples.edit.labels) % mesh.shape["data"] == 0:
            examples = split_examples(examples, mesh)
        examples = after_trunk(trunk, params, examples)
        scores = jax.vmap(one, in_axes=(None, None, 0))(state, params, examples)
        return scores if mesh is None else constrain(scores, replicated(mesh))

    return jax.jit(scorer)


def kept(editor: Editor) -> Editor:
    """The editor whose edit is made already: `EditorState(state of the editor, the edit)` is its
    state, so that one edit can be scored on records that it was not made of."""

    def apply(state: EditorState, function: Callable[..., Any], edit: Any) -> Callable[..., Any]:
        return editor.apply(state.phi, function, edit)

    return editor._replace(edit=lambda state, params, example: state.stats, apply=apply)


def score(
    scorer: Scorer,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    batching: Batching = Batching(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Scores every record once.

    Args:
      progress: called with (edits done, edits in all).

    Raises:
      ValueError: fewer than k records.
    """
    shapes, cache, batch, k = batching
    check_enough(records, k)
    groups = grouped(records, k)
    records = [record for group in groups for record in group]
    width = widths(records)
    order: list[int] = []
    parts: list[dict[str, np.ndarray]] = []

    def started() -> Iterator[tuple[list[int], dict[str, Array]]]:
        for shape, chosen in _batches(groups, shapes, batch):
            filled = [groups[i] for i in (*chosen, *[chosen[-1]] * (batch - len(chosen)))]
            example = collate_records(filled, shape, width, cache)
            yield chosen, scorer(state, params, example)

    for chosen, result in overlapped(started()):
        found = jax.device_get(result)
        parts.append({name: x[: len(chosen)] for name, x in found.items()})
        order += chosen
        progress(len(order) * k, len(records))
    back = np.argsort(order)
    joined = {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}
    lost = np.isnan(joined["edit_loss"])  # the edit has failed
    joined["edit_loss"] = np.where(lost, np.inf, joined["edit_loss"])
    return as_scores({name: _by_record(x, k) for name, x in joined.items()}, records)


def _batches(
    groups: Sequence[Sequence[TokenRecord]], shapes: Shapes | None, batch: int
) -> Iterator[tuple[Shapes, list[int]]]:
    """(shapes to pad to, indices of the groups) of each batch."""
    sizes = [0 if shapes else _size(group) for group in groups]

    @functools.cache
    def shapes_up_to(size: int) -> Shapes:
        pairs = zip(groups, sizes, strict=True)
        return shapes_of([record for group, own in pairs if own <= size for record in group])

    for size, chosen in lots(sizes, PROGRAM / len(groups[0]), lambda _: batch):
        yield shapes or shapes_up_to(size), chosen


def _size(group: Sequence[TokenRecord]) -> int:
    """Tokens of the longest pair, read and answered."""
    pairs = [pair for record in group for pair in (*record.outer, *record.locality)]
    return max(len(p.tokens) for p in pairs) + max(len(p.labels) for p in pairs)


def _by_record(x: np.ndarray, k: int) -> np.ndarray:
    """[groups, k * pairs] as [groups * k, pairs]; what a group has once, for each of its k."""
    x = x.astype(np.float64)
    return np.repeat(x, k) if x.ndim == 1 else x.reshape(len(x) * k, -1)
