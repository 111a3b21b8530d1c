"""Scores of an editor on held-out edits, under a named protocol.

Protocol "teacher-forced sequence" (the paper's): a pair counts as answered if the argmax equals the
label at every scored position, with the right answer fed in. For one edit,

    reliability   on the edit input            generality   mean over the rephrases
    edit success  mean over both (Eq. 1)       locality agreement   argmax before = argmax after at
    locality KL   KL(before || after), mean    every answer position of a locality prompt; near and
                  over answer positions        far apart, the headline is their plain mean
    drawdown      accuracy on locality answers before minus after

and each number is the mean over edits, every edit made alone on the unedited base.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.lax import with_sharding_constraint as constrain
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from mend_jax.data.batches import Shapes, TokenRecord, collate
from mend_jax.data.trunk_cache import TrunkCache
from mend_jax.editors.base import Editor, EditorState, Example
from mend_jax.objectives import (
    IGNORED,
    LogitsFn,
    after_trunk,
    kl_divergence,
    negative_log_likelihood,
)
from mend_jax.parallel import replicated, split_examples

PROTOCOL = "teacher-forced sequence"
RESAMPLES = 1000


class Scores(NamedTuple):
    """Per edit and pair; NaN where an edit has no such pair. Axes: [edits, pairs].

    The first outer pair is the edit input, the others its rephrases.
    """

    success: np.ndarray
    success_before: np.ndarray
    agreement: np.ndarray
    kl: np.ndarray
    accuracy: np.ndarray
    accuracy_before: np.ndarray
    edit_loss: np.ndarray  # [edits], nats: mean over the outer pairs' tokens
    near: np.ndarray  # bool [edits, pairs]: locality pairs that are not "far"


class Metric(NamedTuple):
    """A mean over edits with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


def answered(
    logits: Float[Array, "k answers vocabulary"], labels: Int[Array, "k answers"]
) -> Bool[Array, "k"]:
    """Whether the argmax equals the label at every scored position."""
    return jnp.all((jnp.argmax(logits, axis=-1) == labels) | (labels == IGNORED), axis=-1)


def make_scorer(
    editor: Editor, logits: LogitsFn, trunk: nn.Module | None = None, mesh: Mesh | None = None
) -> Callable[[EditorState, PyTree, Example], dict[str, Array]]:
    """`scorer(state, params, examples)`, jitted: independent edits, vmapped over shared weights.

    With a mesh the edits are split over "data" if their number divides; every process gets all
    scores.
    """

    def one(state: EditorState, params: PyTree, example: Example) -> dict[str, Array]:
        edit = editor.edit(state, params, example)
        after = editor.apply(state, logits, edit)
        outer, locality = example.outer, example.locality
        outer_after = after(params, outer)
        before, moved = logits(params, locality), after(params, locality)
        scored = locality.labels != IGNORED
        same = jnp.argmax(before, axis=-1) == jnp.argmax(moved, axis=-1)
        kl = jnp.where(scored, kl_divergence(before, moved), 0.0)
        return {
            "success": answered(outer_after, outer.labels),
            "success_before": answered(logits(params, outer), outer.labels),
            "agreement": jnp.all(same | ~scored, axis=-1),
            "kl": jnp.sum(kl, axis=-1) / jnp.maximum(jnp.sum(scored, axis=-1), 1),
            "accuracy": answered(moved, locality.labels),
            "accuracy_before": answered(before, locality.labels),
            "edit_loss": negative_log_likelihood(outer_after, outer.labels),
        }

    def scorer(state: EditorState, params: PyTree, examples: Example) -> dict[str, Array]:
        if mesh is not None and len(examples.edit.labels) % mesh.shape["data"] == 0:
            examples = split_examples(examples, mesh)
        examples = after_trunk(trunk, params, examples)
        scores = jax.vmap(one, in_axes=(None, None, 0))(state, params, examples)
        return scores if mesh is None else constrain(scores, replicated(mesh))

    return jax.jit(scorer)


def score(
    scorer: Callable[[EditorState, PyTree, Example], dict[str, Array]],
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    shapes: Shapes,
    cache: TrunkCache | None = None,
    batch: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Scores every record once, `batch` edits at a time (the last batch filled up).

    Args:
      progress: called with (edits done, edits in all).
    """
    outer = max(len(record.outer) for record in records)
    locality = max(1, max(len(record.locality) for record in records))
    parts: list[dict[str, np.ndarray]] = []
    for i in range(0, len(records), batch):
        chosen = list(records[i : i + batch])
        filled = chosen + [chosen[-1]] * (batch - len(chosen))
        example = Example(
            collate([[r.edit] for r in filled], shapes.edit, cache),
            collate([_fill(r.outer, outer) for r in filled], shapes.outer, cache),
            collate([_fill(r.locality, locality) for r in filled], shapes.locality, cache),
        )
        result = jax.device_get(scorer(state, params, example))
        parts.append({k: v[: len(chosen)].astype(np.float64) for k, v in result.items()})
        progress(i + len(chosen), len(records))
    joined = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    for names, count, lengths in (
        (("success", "success_before"), outer, [len(r.outer) for r in records]),
        (
            ("agreement", "kl", "accuracy", "accuracy_before"),
            locality,
            [len(r.locality) for r in records],
        ),
    ):
        absent = np.arange(count)[None, :] >= np.asarray(lengths)[:, None]
        for name in names:
            joined[name][absent] = np.nan
    near = np.asarray([[kind != "far" for kind in _fill(r.kinds, locality)] for r in records])
    return Scores(**joined, near=near)


def summarise(scores: Scores, seed: int = 0) -> dict[str, Metric]:
    """Metrics with bootstrap 95 % intervals over edits; those that cannot be had are left out.

    Names: reliability, generality, edit_success, edit_success_before, locality_agreement (_near,
    _far), locality_kl (nats), accuracy_before, accuracy_after, drawdown.
    """
    near = np.where(scores.near, scores.agreement, np.nan)
    far = np.where(scores.near, np.nan, scores.agreement)
    per_edit = {
        "reliability": scores.success[:, 0],
        "generality": _mean(scores.success[:, 1:]),
        "edit_success": _mean(scores.success),
        "edit_success_before": _mean(scores.success_before),
        "locality_agreement_near": _mean(near),
        "locality_agreement_far": _mean(far),
        "locality_kl": _mean(scores.kl),
        "accuracy_before": _mean(scores.accuracy_before),
        "accuracy_after": _mean(scores.accuracy),
        "drawdown": _mean(scores.accuracy_before) - _mean(scores.accuracy),
    }
    n = len(scores.success)
    draws = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    metrics: dict[str, Metric] = {}
    kinds = []
    for name, values in per_edit.items():
        if np.all(np.isnan(values)):
            continue
        spread = _mean(values[draws])
        metrics[name] = _metric(float(np.nanmean(values)), spread)
        if name.startswith("locality_agreement_"):
            kinds.append((metrics[name].value, spread))
    if kinds:
        headline = float(np.mean([value for value, _ in kinds]))
        metrics["locality_agreement"] = _metric(headline, np.mean([s for _, s in kinds], axis=0))
    return metrics


def _metric(value: float, spread: np.ndarray) -> Metric:
    low, high = np.nanpercentile(spread, [2.5, 97.5])
    return Metric(value, float(low), float(high))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without the NaNs; NaN where there is nothing else."""
    count = np.sum(~np.isnan(values), axis=-1)
    total = np.nansum(values, axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _fill(items: Sequence[Any], n: int) -> list[Any]:
    return [*items, *[None] * (n - len(items))]
