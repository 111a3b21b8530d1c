"""What an evaluation found, edit by edit, and the numbers that are made of it.

For one edit, with pairs scored between 0 and 1 under a named protocol,

    reliability   on the edit input            generality   mean over the rephrases
    edit success  mean over both (Eq. 1)       locality agreement   whether a locality prompt is
    locality KL   KL(before || after), mean    answered as before; near and far apart, the
                  over answer positions        headline is their plain mean
    drawdown      score on locality answers before minus after

and each number is the mean over edits. Perplexity is that of all locality answers together,
exp(nats per token); its drawdown is after minus before.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000

PROTOCOLS = {
    "sequence": "teacher-forced sequence",
    "token": "teacher-forced token",
    "exact": "greedy generation, exact match",
    "contains": "greedy generation, contains the answer",
}
"""How a pair is scored, by option: all of its tokens right with the right answer fed in (the
paper's); the share of them that is; or the model's own words up to their natural end, which are
the answer, or have it in them."""


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
    nll: np.ndarray  # nats, sum over a locality answer's tokens
    nll_before: np.ndarray
    tokens: np.ndarray  # of a locality answer
    edit_loss: np.ndarray  # [edits], nats: mean over the outer pairs' tokens
    near: np.ndarray  # bool [edits, pairs]: locality pairs that are not "far"


class Metric(NamedTuple):
    """A mean over edits with its bootstrap 95 % interval over edits (of one sequence: over those
    that it consists of, not over other sequences)."""

    value: float
    low: float
    high: float


def summarise(scores: Scores, seed: int = 0, k: int = 1) -> dict[str, Metric]:
    """Metrics with bootstrap 95 % intervals over edits; those that cannot be had are left out.

    Of k edits that were made at once, which share their fate, all or none are drawn.

    Names: reliability, generality, edit_success, edit_success_before, locality_agreement (_near,
    _far), locality_kl (nats), accuracy_before, accuracy_after, drawdown, perplexity_before,
    perplexity_after, perplexity_drawdown.
    """
    near = np.where(scores.near, scores.agreement, np.nan)
    far = np.where(scores.near, np.nan, scores.agreement)
    per_edit = {
        "reliability": scores.success[:, 0],
        "generality": mean(scores.success[:, 1:]),
        "edit_success": mean(scores.success),
        "edit_success_before": mean(scores.success_before),
        "locality_agreement_near": mean(near),
        "locality_agreement_far": mean(far),
        "locality_kl": mean(scores.kl),
        "accuracy_before": mean(scores.accuracy_before),
        "accuracy_after": mean(scores.accuracy),
        "drawdown": mean(scores.accuracy_before) - mean(scores.accuracy),
    }
    n = len(scores.success)
    groups = np.random.default_rng(seed).integers(0, n // k, (RESAMPLES, n // k))
    draws = (groups[..., None] * k + np.arange(k)).reshape(RESAMPLES, n)
    metrics = {
        name: _metric(partial(_mean_of, values), draws)
        for name, values in per_edit.items()
        if not np.all(np.isnan(values))
    }
    kinds = [per_edit[name] for name in metrics if name.startswith("locality_agreement_")]
    if kinds:
        metrics["locality_agreement"] = _metric(
            lambda rows: np.mean([mean(kind[rows]) for kind in kinds], axis=0), draws
        )
    if np.nansum(scores.tokens) > 0:
        tokens, before, after = (
            np.nansum(x, axis=1) for x in (scores.tokens, scores.nll_before, scores.nll)
        )

        def perplexity(nll: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return np.exp(nll[rows].sum(-1) / np.maximum(tokens[rows].sum(-1), 1))

        metrics["perplexity_before"] = _metric(lambda rows: perplexity(before, rows), draws)
        metrics["perplexity_after"] = _metric(lambda rows: perplexity(after, rows), draws)
        metrics["perplexity_drawdown"] = _metric(
            lambda rows: perplexity(after, rows) - perplexity(before, rows), draws
        )
    return metrics


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without the NaNs; NaN where there is nothing else."""
    count = np.sum(~np.isnan(values), axis=-1)
    total = np.nansum(values, axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _mean_of(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return mean(values[rows])


def _metric(statistic: Callable[[np.ndarray], np.ndarray], draws: np.ndarray) -> Metric:
    """The statistic of all edits, and its interval over the draws; both from edits' indices."""
    low, high = np.nanpercentile(statistic(draws), [2.5, 97.5])
    return Metric(float(statistic(np.arange(draws.shape[1]))), float(low), float(high))
