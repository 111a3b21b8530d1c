"""Metrics by hand, their intervals, and what is left out."""

from typing import Any

import jax
import numpy as np
import pytest

from mend_jax.evaluation.metrics import PROTOCOLS, Scores, summarise
from mend_jax.reports.results import make_results, table

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
    arrays = {k: np.asarray(v, float) for k, v in (values | changes).items() if k != "near"}
    near = np.asarray(changes.get("near", [[True, True, False]] * 3))
    return Scores(**arrays, near=near)


def test_the_definitions():
    got = {name: metric.value for name, metric in summarise(hand_made()).items()}
    near, far = (1 / 2 + 0) / 2, 1.0
    wanted = {
        "reliability": 2 / 3,
        "generality": (1 / 2 + 1) / 2,
        "edit_success": (2 / 3 + 1 / 2 + 1) / 3,
        "edit_success_before": (0 + 1 / 2 + 1) / 3,
        "locality_agreement_near": near,
        "locality_agreement_far": far,
        "locality_agreement": (near + far) / 2,
        "locality_kl": (0.2 + 0.4) / 2,
        "accuracy_before": (2 / 3 + 1) / 2,
        "accuracy_after": (1 / 3 + 0) / 2,
        "drawdown": (1 / 3 + 1) / 2,
        "perplexity_before": np.exp(4 / 8),  # of all tokens together
        "perplexity_after": np.exp(8 / 8),
        "perplexity_drawdown": np.exp(1) - np.exp(0.5),
    }
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-12, err_msg=name)


def test_with_one_kind_of_locality_the_headline_is_that_kind():
    metrics = summarise(hand_made(near=[[True] * 3] * 3))
    assert "locality_agreement_far" not in metrics
    assert metrics["locality_agreement"] == metrics["locality_agreement_near"]


def test_what_cannot_be_had_is_left_out():
    none = np.full((3, 1), NAN)
    scores = hand_made(
        success=[[1], [0], [1]],
        success_before=[[0], [0], [0]],
        near=np.ones((3, 1), bool),
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
        edit_loss=rng.random(n), near=rng.random((n, 3)) < 0.5,
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
    results = make_results("mend", "m", "d", PROTOCOLS["token"], 3, metrics, 1.0, {})
    lines = table(results).splitlines()
    assert lines[0].startswith("3 edits, teacher-forced token")
    assert [line.split()[0] for line in lines[1:]] == list(results["metrics"])
    assert set(results["metrics"]) == set(metrics)
