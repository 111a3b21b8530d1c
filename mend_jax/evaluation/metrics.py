"""What an evaluation found, edit by edit, and the numbers that are made of it.

For one edit, with pairs scored between 0 and 1 under a named protocol,

    reliability   on the edit input            generality   mean over the rephrases
    edit success  mean over both (Eq. 1)       locality agreement   whether a locality prompt is
    locality KL   KL(before || after), mean    answered as before; near and far apart, the
                  over answer positions        headline is their plain mean
    drawdown      score on locality answers before minus after

and each number is the mean over edits. Perplexity is that of all locality answers together,
exp(nats per token); its drawdown is after minus before. What else is asked of an edited subject
(locality of the kind "own") has an agreement for itself, and is in no other number.

An edit after which the model's logits are not finite has failed: it answers nothing, its KL and
nats are infinite, and the metric `failed`, which is there if any edit has, counts it.

`METRICS` is the one table of them: a new one is a function of `Scores` and a line there, from which
results.json, tables and figures take it.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from mend_jax.data.records import KINDS
from mend_jax.evaluation.scores import HEADLINE, Scores, failed, mean, of_kind, settled

RESAMPLES = 1000

HUGE = 1e300
"""What stands for infinity where two values are interpolated."""

PROTOCOLS = {
    "sequence": "teacher-forced sequence",
    "token": "teacher-forced token",
    "exact": "greedy generation, exact match",
    "contains": "greedy generation, contains the answer",
}
"""How a pair is scored, by option: all of its tokens right with the right answer fed in (the
paper's); the share of them that is; or the model's own words up to their natural end, which are
the answer, or have it in them."""


def acted(field: str, scores: Scores) -> np.ndarray:
    """Of each edit, the share of its rephrases at whose end its own edit, or a wrong one, acts."""
    values = getattr(scores, field)
    return np.full(len(scores.success), np.nan) if values is None else mean(values[:, 1:])


def fired(kinds: tuple[str, ...], scores: Scores) -> np.ndarray:
    """Of each edit, the share of its locality prompts of these kinds at whose end any edit acts."""
    if scores.fired is None:
        return np.full(len(scores.success), np.nan)
    return mean(of_kind(scores, "fired", *kinds))


class Metric(NamedTuple):
    """One measure: how it is made of scores, and where it is shown.

    title: what it is called in tables and figures.
    kind: what it tells about: the edits, what must not move, or the model without an edit.
    of: scores -> a number for each edit, float[edits], or several numbers that are pooled,
      float[parts, edits]; NaN where an edit has none. Of nothing but NaN there is no metric.
    pool: what they come to: as many arrays float[..., edits] as there are parts -> float[...].
    unedited: the unedited model's value: a number, or the metric that it is; None: not known.
    headline: the one number of its kind where there is room for one only.
    column, bar: whether it stands in tables, and among the bars of a run.
    """

    name: str
    title: str
    kind: Literal["edit", "locality", "unedited"]
    of: Callable[[Scores], np.ndarray]
    pool: Callable[..., np.ndarray] = mean
    unedited: str | float | None = None
    headline: bool = False
    column: bool = False
    bar: bool = False


def agreement(kind: str, scores: Scores) -> np.ndarray:
    """Of each edit, the share of its locality prompts of a kind that are answered as before."""
    return mean(of_kind(scores, "agreement", kind))


def agreement_by_kind(scores: Scores) -> np.ndarray:
    """`agreement` of those kinds of the headline that any edit has."""
    kinds = [agreement(kind, scores) for kind in HEADLINE]
    return np.asarray([kind for kind in kinds if not np.all(np.isnan(kind))])


def mean_of_kinds(*kinds: np.ndarray) -> np.ndarray:
    """The plain mean of each kind's mean over edits."""
    return np.asarray(np.mean([mean(kind) for kind in kinds], axis=0))


def located(field: str, scores: Scores) -> np.ndarray:
    """Of each edit, the mean over its locality pairs of the kinds in the headline."""
    return mean(of_kind(scores, field, *HEADLINE))


def drawdown(scores: Scores) -> np.ndarray:
    """What an edit takes from the score on its locality answers."""
    return located("accuracy_before", scores) - located("accuracy", scores)


def nats(scores: Scores, *fields: str) -> np.ndarray:
    """Of each edit, the nats of all its locality answers, by field, and their tokens."""
    values = [of_kind(scores, field, *HEADLINE) for field in (*fields, "tokens")]
    if not np.nansum(values[-1]) > 0:
        return np.full(len(scores.tokens), np.nan)
    return np.asarray([np.nansum(x, axis=1) for x in values])


def perplexity(nll: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """exp(nats per token), over all tokens of all edits."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(nll.sum(-1) / np.maximum(tokens.sum(-1), 1)))


def perplexity_drawdown(after: np.ndarray, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """What the edits add to it."""
    after, before = perplexity(after, tokens), perplexity(before, tokens)
    return np.where(np.isinf(after), np.inf, after - np.where(np.isinf(before), 0.0, before))


_TABLE = (
    Metric(
        "reliability", "reliability", "edit", lambda s: s.success[:, 0], column=True, bar=True,
    ),
    Metric(
        "generality", "generality", "edit", lambda s: mean(s.success[:, 1:]),
        column=True, bar=True,
    ),
    Metric(
        "edit_success", "edit success", "edit", lambda s: mean(s.success),
        unedited="edit_success_before", headline=True, column=True,
    ),
    Metric(
        "edit_success_before", "edit success, no edit", "unedited",
        lambda s: mean(s.success_before), bar=True,
    ),
    Metric(
        "locality_agreement", "locality agreement", "locality", agreement_by_kind, mean_of_kinds,
        unedited=1.0, headline=True, column=True,
    ),
    *(
        Metric(
            f"locality_agreement_{kind}", f"locality agreement, {kind}", "locality",
            partial(agreement, kind), unedited=1.0, column=kind == "own", bar=True,
        )
        for kind in KINDS
    ),
    Metric("found", "found", "edit", partial(acted, "found"), column=True),
    Metric("wrong", "wrong edit", "edit", partial(acted, "wrong"), column=True),
    Metric("fired", "fired", "locality", partial(fired, HEADLINE), unedited=0.0, column=True),
    Metric(
        "fired_own", "fired, own", "locality", partial(fired, ("own",)), unedited=0.0, column=True,
    ),
    Metric("failed", "edits that are not finite", "edit", failed, unedited=0.0, column=True),
    Metric("locality_kl", "locality KL (nats)", "locality", partial(located, "kl"), unedited=0.0),
    Metric(
        "accuracy_before", "locality accuracy, no edit", "unedited",
        partial(located, "accuracy_before"), bar=True,
    ),
    Metric(
        "accuracy_after", "locality accuracy", "locality", partial(located, "accuracy"),
        unedited="accuracy_before", column=True, bar=True,
    ),
    Metric("drawdown", "accuracy drawdown", "locality", drawdown, unedited=0.0, column=True),
    Metric(
        "perplexity_before", "perplexity, no edit", "unedited",
        lambda s: nats(s, "nll_before"), perplexity,
    ),
    Metric(
        "perplexity_after", "perplexity", "locality", lambda s: nats(s, "nll"), perplexity,
        unedited="perplexity_before", column=True,
    ),
    Metric(
        "perplexity_drawdown", "perplexity drawdown", "locality",
        lambda s: nats(s, "nll", "nll_before"), perplexity_drawdown, unedited=0.0, column=True,
    ),
)  # fmt: skip

METRICS = {metric.name: metric for metric in _TABLE}
"""All metrics by name, in the order in which results.json has them."""


def columns() -> list[Metric]:
    """The metrics of a table, those of edits first, and of each kind its headline."""
    kinds = ("edit", "locality", "unedited")
    shown = [metric for metric in METRICS.values() if metric.column]
    return sorted(shown, key=lambda metric: (kinds.index(metric.kind), not metric.headline))


class Estimate(NamedTuple):
    """A metric's value with its bootstrap 95 % interval over edits (of one sequence: over those
    that it consists of, not over other sequences)."""

    value: float
    low: float
    high: float


def summarise(scores: Scores, seed: int = 0, k: int = 1) -> dict[str, Estimate]:
    """Metrics with bootstrap 95 % intervals over edits; those that cannot be had are left out.

    Of k edits that were made at once, which share their fate, all or none are drawn.
    """
    scores, n = settled(scores), len(scores.success)
    groups = np.random.default_rng(seed).integers(0, n // k, (RESAMPLES, n // k))
    draws = (groups[..., None] * k + np.arange(k)).reshape(RESAMPLES, n)
    found = {}
    for name, metric in METRICS.items():
        parts = np.atleast_2d(metric.of(scores))
        if np.all(np.isnan(parts)):
            continue
        value, drawn = (
            metric.pool(*(part[rows] for part in parts)) for rows in (np.arange(n), draws)
        )
        low, high = np.nanpercentile(np.minimum(drawn, HUGE), [2.5, 97.5])
        found[name] = Estimate(*(float(x) if x < HUGE / 2 else np.inf for x in (value, low, high)))
    return found
