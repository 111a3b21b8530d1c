"""What an evaluation found, edit by edit and pair by pair."""

from typing import NamedTuple

import numpy as np

from mend_jax.data.records import KINDS


class Scores(NamedTuple):
    """Per edit and pair; NaN where an edit has no such pair. Axes: [edits, pairs].

    The first outer pair is the edit input, the others its rephrases. Where there are tokens, KL
    and nats that are NaN are those of an edit that has failed.
    """

    success: np.ndarray
    success_before: np.ndarray
    agreement: np.ndarray
    kl: np.ndarray
    accuracy: np.ndarray
    accuracy_before: np.ndarray
    nll: np.ndarray  # nats, sum over a locality answer's tokens
    nll_before: np.ndarray
    tokens: np.ndarray  # of a locality answer; NaN too where nothing but words was looked at
    edit_loss: np.ndarray  # [edits], nats: mean over the outer pairs' tokens; inf: it has failed
    kinds: np.ndarray  # int [edits, pairs]: of a locality pair, the place of its kind in KINDS
    # Of scoped edits that are held together, 1 where at the end of the prompt ...
    found: np.ndarray | None = None  # ... of an outer pair, its own edit acts
    wrong: np.ndarray | None = None  # ... of an outer pair, another one does
    fired: np.ndarray | None = None  # ... of a locality pair, any edit does


HEADLINE = ("near", "far")
"""The kinds of locality pairs that all numbers of locality are made of."""


def of_kind(scores: Scores, field: str, *kinds: str) -> np.ndarray:
    """The values of the locality pairs of these kinds; NaN for the others."""
    wanted = np.isin(scores.kinds, [KINDS.index(kind) for kind in kinds])
    return np.where(wanted, getattr(scores, field), np.nan)


def settled(scores: Scores) -> Scores:
    """The scores with infinity in place of what is not a number though there is such a pair."""
    there = ~np.isnan(scores.tokens)

    def infinite(values: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(values) & there, np.inf, values)

    kl, nll, before = map(infinite, (scores.kl, scores.nll, scores.nll_before))
    return scores._replace(kl=kl, nll=nll, nll_before=before)


def failed(scores: Scores) -> np.ndarray:
    """1 for each edit that has failed, else 0; NaN for all if none has."""
    some = np.isinf(scores.edit_loss) | np.any(np.isinf([scores.kl, scores.nll]), axis=(0, 2))
    return np.where(np.any(some), some, np.nan)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without the NaNs; NaN where there is nothing else."""
    count = np.sum(~np.isnan(values), axis=-1)
    total = np.nansum(values, axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
