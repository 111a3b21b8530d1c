"""Metrics by hand, their intervals, and what is left out."""

from typing import Any, get_args

import jax
import numpy as np
import pytest

from mend_jax.evaluation.generation import Free
from mend_jax.evaluation.metrics import METRICS, PROTOCOLS, Metric, columns, summarise
from mend_jax.evaluation.scores import Scores
from mend_jax.objectives import Forced
from mend_jax.reports.results import About, make_results, table
from mend_jax.reports.tables import report

NAN = np.nan
LOCAL = ("agreement", "kl", "accuracy", "accuracy_before", "nll", "nll_before", "tokens")


def hand_made(**changes: Any) -> Scores:
    """Three edits: two rephrases and near, far; one rephrase and near; nothing but the edit."""
    values: dict[str, Any] = {
        "success": [[1, 1, 0], [0, 1, NAN], [1, NAN, NAN]],
        "success_before": [[0, 0, 0], [0, 1, NAN], [1, NAN, NAN]],
        "agreement": [[1, 0, 1], [0, NAN, NAN], [NAN, NAN, NAN]],
        "kl": [[0.5, 0.1, 0.0], [0.4, NAN, NAN], [NAN, NAN, NAN]],
        "accuracy": [[1, 0, 0], [0, NAN, NAN], [NAN, NAN, NAN]],
        "accuracy_before": [[1, 1, 0], [1, NAN, NAN], [NAN, NAN, NAN]],
        "nll": [[1.0, 2.0, 1.0], [4.0, NAN, NAN], [NAN, NAN, NAN]],
        "nll_before": [[1.0, 1.0, 1.0], [1.0, NAN, NAN], [NAN, NAN, NAN]],
        "tokens": [[1, 2, 1], [4, NAN, NAN], [NAN, NAN, NAN]],
        "edit_loss": [1.0, 2.0, 3.0],
    }
    arrays = {k: np.asarray(v, float) for k, v in (values | changes).items() if k != "kinds"}
    kinds = np.asarray(changes.get("kinds", [[0, 0, 1]] * 3))
    return Scores(**arrays, kinds=kinds)


def test_the_definitions():
    got = {name: metric.value for name, metric in summarise(hand_made()).items()}
    near, far = (1 / 2 + 0) / 2, 1.0
    wanted = {
        "reliability": 2 / 3,
        "generality": (1 / 2 + 1) / 2,
        "edit_success": (2 / 3 + 1 / 2 + 1) / 3,
        "edit_success_before": (0 + 1 / 2 + 1) / 3,
        "locality_agreement": (near + far) / 2,
        "locality_agreement_near": near,
        "locality_agreement_far": far,
        "locality_kl": (0.2 + 0.4) / 2,
        "accuracy_before": (2 / 3 + 1) / 2,
        "accuracy_after": (1 / 3 + 0) / 2,
        "drawdown": (1 / 3 + 1) / 2,
        "perplexity_before": np.exp(4 / 8),  # of all tokens together
        "perplexity_after": np.exp(8 / 8),
        "perplexity_drawdown": np.exp(1) - np.exp(0.5),
    }
    assert list(got) == list(wanted)  # in the order of results.json
    others = {"failed", "locality_agreement_own", "found", "wrong", "fired", "fired_own"}
    assert [name for name in METRICS if name not in others] == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-12, err_msg=name)


def test_what_else_is_asked_of_the_subject_is_in_no_other_number():
    plain = hand_made(kinds=[[0, 1, 2], [0] * 3, [0] * 3])
    got = summarise(plain)
    assert got["locality_agreement_own"].value == 1.0
    lost = {name: getattr(plain, name).copy() for name in LOCAL if name != "tokens"}
    for values in lost.values():
        values[0, 2] = 7.0
    other = summarise(plain._replace(**lost))
    assert {name for name in got if got[name] != other[name]} == {"locality_agreement_own"}
    assert got["locality_agreement"].value == (got["locality_agreement_near"].value + 0.0) / 2


def test_what_acted_is_counted_apart():
    """Found and wrong of rephrases only; fired of near and far together, and of own."""
    acted = {
        "found": [[1, 1, 0], [1, 0, NAN], [1, NAN, NAN]],
        "wrong": [[0, 0, 1], [0, 0, NAN], [0, NAN, NAN]],
        "fired": [[1, 0, 1], [0, NAN, NAN], [NAN, NAN, NAN]],
    }
    kinds = np.asarray([[0, 1, 2], [0] * 3, [0] * 3])
    arrays = {name: np.asarray(values, float) for name, values in acted.items()}
    got = summarise(hand_made(kinds=kinds)._replace(**arrays))
    assert got["found"].value == (1 / 2 + 0) / 2 and got["wrong"].value == (1 / 2 + 0) / 2
    assert got["fired"].value == (1 / 2 + 0) / 2 and got["fired_own"].value == 1.0
    assert not {"found", "wrong", "fired"} & set(summarise(hand_made()))


def test_with_one_kind_of_locality_the_headline_is_that_kind():
    metrics = summarise(hand_made(kinds=[[0] * 3] * 3))
    assert "locality_agreement_far" not in metrics
    assert metrics["locality_agreement"] == metrics["locality_agreement_near"]


@pytest.mark.parametrize("lost", ["kl", "nll", "nll_before"])
def test_what_is_not_a_number_never_makes_a_score_better(lost: str):
    """Of one pair, of one edit, of all: infinite, and counted where it is the edit's doing."""
    good = hand_made()
    for rows in ([0], [0, 1]):
        values = getattr(good, lost).copy()
        values[rows, 0] = NAN
        got = summarise(good._replace(**{lost: values}))
        if lost == "nll_before":  # the base itself is broken
            assert got["perplexity_before"].value == np.inf and "failed" not in got
            continue
        assert got["failed"].value == len(rows) / 3
        hurt = ["locality_kl"] if lost == "kl" else ["perplexity_after", "perplexity_drawdown"]
        for name in hurt:
            assert got[name].value == got[name].high == np.inf, name
        assert not any(np.isnan(x) for estimate in got.values() for x in estimate)


def test_an_edit_whose_own_loss_is_lost_has_failed():
    got = summarise(hand_made(edit_loss=[1.0, np.inf, 3.0]))
    assert got["failed"].value == 1 / 3


def test_what_cannot_be_had_is_left_out():
    none = np.full((3, 1), NAN)
    scores = hand_made(
        success=[[1], [0], [1]],
        success_before=[[0], [0], [0]],
        kinds=np.zeros((3, 1), int),
        **dict.fromkeys(LOCAL, none),
    )
    assert set(summarise(scores)) == {"reliability", "edit_success", "edit_success_before"}


def test_the_bootstrap_is_deterministic_and_holds_the_mean():
    rng = np.random.default_rng(0)
    n = 200
    random = {
        name: rng.integers(0, 2, (n, 3)).astype(float)
        for name in ("success", "success_before", "agreement", "accuracy", "accuracy_before")
    }
    more = {name: rng.random((n, 3)) for name in ("kl", "nll", "nll_before")}
    scores = Scores(
        **random, **more, tokens=rng.integers(1, 4, (n, 3)).astype(float),
        edit_loss=rng.random(n), kinds=rng.integers(0, 2, (n, 3)),
    )  # fmt: skip
    metrics = summarise(scores, seed=5)
    assert metrics == summarise(scores, seed=5) != summarise(scores, seed=6)
    for name, metric in metrics.items():
        assert metric.low < metric.value < metric.high, name
    success = scores.success[:, 0]
    wanted = 1.96 * np.std(success) / np.sqrt(n)  # the normal approximation
    np.testing.assert_allclose(
        (metrics["reliability"].high - metrics["reliability"].low) / 2, wanted, rtol=0.15
    )


def test_an_interval_of_one_edit_is_that_edit():
    one = jax.tree.map(lambda x: x[:1], hand_made())
    for metric in summarise(one).values():
        assert metric.low == pytest.approx(metric.value) == metric.high


def test_the_table_has_a_line_for_each_metric():
    metrics = summarise(hand_made())
    results = make_results(About("mend", "m", "d", 3, PROTOCOLS["token"]), metrics, 1.0, {})
    lines = table(results).splitlines()
    assert lines[0].startswith("3 edits, teacher-forced token")
    assert [line.split()[0] for line in lines[1:]] == list(results["metrics"])
    assert set(results["metrics"]) == set(metrics)


def test_a_kind_of_locality_that_a_draw_misses_does_not_count_there():
    """Of two edits only the first has a far prompt: draws without it have no headline."""
    two = jax.tree.map(lambda x: x[:2], hand_made())
    metrics = summarise(two)
    assert metrics["locality_agreement_far"] == (1.0, 1.0, 1.0)
    near, headline = metrics["locality_agreement_near"], metrics["locality_agreement"]
    assert (near.low, near.high) == (0.0, 0.5)
    assert (headline.low, headline.high) == (5 / 8, 3 / 4)  # both edits, or the first twice


def test_the_table_of_metrics_refers_to_itself():
    for name, metric in METRICS.items():
        assert metric.name == name
        if isinstance(metric.unedited, str):
            assert METRICS[metric.unedited].kind == "unedited"
    headlines = [metric.name for metric in METRICS.values() if metric.headline]
    assert headlines == ["edit_success", "locality_agreement"]
    assert [metric.name for metric in columns()] == [
        "edit_success", "reliability", "generality", "found", "wrong", "failed",
        "locality_agreement", "locality_agreement_own", "fired", "fired_own",
        "accuracy_after", "drawdown", "perplexity_after", "perplexity_drawdown",
    ]  # fmt: skip


def test_a_new_measure_is_one_line(monkeypatch: pytest.MonkeyPatch):
    """In the table it is in results.json, among the lines of text, and a column of the page."""
    worst = Metric(
        "worst", "worst rephrase", "edit", lambda s: np.nanmin(s.success, 1), column=True
    )
    monkeypatch.setitem(METRICS, worst.name, worst)
    about = About("mend", "m", "d", 3, PROTOCOLS["sequence"])
    results = make_results(about, summarise(hand_made()), 1.0, {})
    assert results["metrics"]["worst"]["value"] == 1 / 3
    assert table(results).splitlines()[-1].split()[:2] == ["worst", "0.333"]
    assert "| generality | worst rephrase | locality agreement |" in report([results])


def test_every_protocol_has_its_words():
    assert set(PROTOCOLS) == {*get_args(Forced), *get_args(Free)}
