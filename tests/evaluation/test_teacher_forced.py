"""Scoring: side by side as alone, by the plain definitions, and nothing where no edit is."""

from typing import Any, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_equal

import mend_jax as mj
from mend_jax.data.batches import shapes_of
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import KINDS, Record
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.training_batches import Draw, training_batches
from mend_jax.data.trunk_cache import cache_trunk
from mend_jax.evaluation import teacher_forced as evaluation
from mend_jax.evaluation.metrics import summarise
from mend_jax.evaluation.scores import Scores
from mend_jax.evaluation.teacher_forced import Batching, answered, judged, make_scorer, score
from mend_jax.objectives import Forced, after_trunk

SITES = r"layers_2/mlp/(up|down)_proj"
ALPHA = 0.15
"""Large enough that some answers move, and some do not."""
SAID = ("near", "far", "")


def test_answered_needs_every_scored_position():
    labels = jnp.array([[1, 2], [1, 2], [1, -100], [0, -100], [-100, 2]])
    logits = jnp.asarray(np.eye(3)[[[1, 2], [1, 1], [1, 0], [1, 0], [0, 2]]])
    np.testing.assert_array_equal(answered(logits, labels), [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(answered(logits, labels, "token"), [1, 0.5, 1, 0, 1])


def tokens(rng: np.random.Generator, n: int, answers: int) -> Tokens:
    whole = rng.integers(61, size=n + answers).astype(np.int32)
    read = np.arange(n - 1, n + answers - 1, dtype=np.int32)
    return Tokens(whole[:-1], read, whole[n:])


@pytest.fixture(scope="module")
def records() -> list[TokenRecord]:
    """Five edits with different numbers of pairs."""
    rng = np.random.default_rng(1)
    found = []
    for i in range(5):
        kinds = SAID[: i % 4]
        found.append(
            TokenRecord(
                tokens(rng, 2 + i, 1 + i % 2),
                tuple(tokens(rng, 3, 2) for _ in range(i % 3)),
                tuple(tokens(rng, 4, 1 + j) for j in range(len(kinds))),
                kinds,
                Record("p", "t"),
            )
        )
    return found


class Ready(NamedTuple):
    """An editor with statistics, over the tail, and what scores it."""

    editor: mj.Editor
    state: mj.EditorState
    trunk: Any
    tail: Any
    scorer: Any


def made_ready(tiny: Any, records: list[TokenRecord], alpha: float) -> Ready:
    trunk, tail = mj.split(tiny.model, SITES)
    editor = mj.mend(mj.sequence_loss(tail), SITES, rank=4, alpha=alpha)
    batch = next(training_batches(records, shapes_of(records), Draw(5), 0))
    batch = jax.jit(lambda e: after_trunk(trunk, tiny.params, e))(batch)
    one = jax.tree.map(lambda x: x[0], batch)
    state = editor.init(jax.random.key(0), tiny.params, one)
    stats, _ = jax.jit(editor.observe)(state, tiny.params, batch)
    scorer = make_scorer(editor, mj.sequence_logits(tail), trunk)
    return Ready(editor, state._replace(stats=stats), trunk, tail, scorer)


@pytest.fixture(scope="module")
def ready(tiny: Any, records: list[TokenRecord]) -> Ready:
    return made_ready(tiny, records, alpha=ALPHA)


@pytest.fixture(scope="module")
def scores(ready: Ready, tiny: Any, records: list[TokenRecord]) -> Scores:
    """All five side by side."""
    batching = Batching(shapes_of(records), batch=5)
    return score(ready.scorer, ready.state, tiny.params, records, batching)


def assert_same(a: Scores, b: Scores) -> None:
    acted = ("found", "wrong", "fired")  # of held edits alone
    for name, x, y in zip(Scores._fields, a, b, strict=True):
        if name in acted:
            assert x is y is None
            continue
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5, err_msg=name)


def test_side_by_side_is_one_at_a_time_and_the_batch_does_not_matter(
    ready: Ready, scores: Scores, tiny: Any, records: list[TokenRecord]
):
    assert np.nanmax(scores.kl) > 1e-3  # the edits do something
    for batch, wanted in ((1, [1, 2, 3, 4, 5]), (3, [3, 5])):
        seen: list[tuple[int, int]] = []
        again = score(
            ready.scorer, ready.state, tiny.params, records,
            Batching(shapes_of(records), batch=batch),
            progress=lambda *x, seen=seen: seen.append(x),
        )  # fmt: skip
        assert_same(again, scores)
        assert seen == [(n, 5) for n in wanted]


def test_one_program_for_all_batches_of_a_shape(
    ready: Ready, scores: Scores, tiny: Any, records: list[TokenRecord]
):
    counted = ready.editor._replace(edit=chex.assert_max_traces(ready.editor.edit, n=1))
    scorer = make_scorer(counted, mj.sequence_logits(ready.tail), ready.trunk)
    shapes = shapes_of(records)
    batching = Batching(shapes, batch=2)
    assert_same(score(scorer, ready.state, tiny.params, records, batching), scores)


@pytest.mark.parametrize(("batch", "k"), [(1, 1), (2, 1), (1, 2)])
def test_scores_in_lots_of_like_lengths_are_the_same(
    ready: Ready, tiny: Any, records: list[TokenRecord], monkeypatch: pytest.MonkeyPatch,
    batch: int, k: int,
):  # fmt: skip
    used: list[Any] = []

    def scorer(state: Any, params: Any, example: Any) -> Any:
        used.append((example.outer.labels.shape, example.locality.labels.shape))
        return ready.scorer(state, params, example)

    monkeypatch.setattr(evaluation, "PROGRAM", 0.5)  # as if it cost nothing
    backwards = records[::-1]
    in_lots = score(scorer, ready.state, tiny.params, backwards, Batching(batch=batch, k=k))
    assert len(set(used)) > 1
    shapes = shapes_of(records)
    batching = Batching(shapes, batch=batch, k=k)
    plain = score(ready.scorer, ready.state, tiny.params, backwards, batching)
    assert_same(in_lots, plain)


def test_scores_are_missing_where_a_record_has_no_pair(
    scores: Scores, records: list[TokenRecord]
):
    for i, record in enumerate(records):
        assert np.sum(~np.isnan(scores.success[i])) == len(record.outer)
        assert np.sum(~np.isnan(scores.agreement[i])) == len(record.locality)
        wanted = [KINDS.index(kind or "near") for kind in record.kinds]
        assert list(scores.kinds[i][: len(wanted)]) == wanted


def test_scores_are_what_the_plain_definitions_give(
    ready: Ready, scores: Scores, tiny: Any, records: list[TokenRecord]
):
    """By merged weights and unpadded sequences, without trunk, tail, vmap or interception."""
    logits = jax.jit(mj.sequence_logits(tiny.model))
    whole = mj.mend(mj.sequence_loss(tiny.model), SITES, rank=4, alpha=ALPHA)
    make_edit = jax.jit(whole.edit)

    def read(params: Any, pair: Tokens) -> np.ndarray:
        x = np.zeros((1, 8), np.int32)
        x[0, : len(pair.tokens)] = pair.tokens
        return np.asarray(logits(params, mj.Pair(mj.Inputs(x), None)))[0][pair.read]

    def log_softmax(x: np.ndarray) -> np.ndarray:
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.sum(np.exp(x), -1, keepdims=True))

    shares = []
    for i, record in enumerate(records):
        inputs = mj.Inputs(record.edit.tokens[None], record.edit.read[None])
        pair = mj.Pair(inputs, record.edit.labels[None])
        edit = make_edit(ready.state, tiny.params, mj.Example(pair, pair, pair))
        after = mj.merge(tiny.params, edit)
        success = np.all(read(after, record.edit).argmax(-1) == record.edit.labels)
        assert scores.success[i, 0] == success
        for j, item in enumerate(record.locality):
            p, q = log_softmax(read(tiny.params, item)), log_softmax(read(after, item))
            kl = np.mean(np.sum(np.exp(p) * (p - q), -1))
            np.testing.assert_allclose(scores.kl[i, j], kl, rtol=1e-3, atol=1e-5)
            shares.append(np.mean(p.argmax(-1) == q.argmax(-1)))
            assert scores.agreement[i, j] == (shares[-1] == 1)
            assert scores.accuracy_before[i, j] == np.all(p.argmax(-1) == item.labels)
            assert scores.accuracy[i, j] == np.all(q.argmax(-1) == item.labels)
            for name, x in (("nll_before", p), ("nll", q)):
                nll = -np.sum(np.take_along_axis(x, item.labels[:, None], -1))
                np.testing.assert_allclose(getattr(scores, name)[i, j], nll, rtol=1e-4)
            assert scores.tokens[i, j] == len(item.labels)
    assert any(0 < share < 1 for share in shares) and 1 in shares  # each case comes up


def test_scores_from_cached_trunk_outputs_are_the_same(
    ready: Ready, scores: Scores, tiny: Any, records: list[TokenRecord]
):
    sequences = [p.tokens for r in records for p in (*r.outer, *r.locality)]
    cache = cache_trunk(ready.trunk, tiny.params, sequences)
    scorer = make_scorer(ready.editor, mj.sequence_logits(ready.tail))
    shapes = shapes_of(records)
    batching = Batching(shapes, cache, batch=5)
    assert_same(score(scorer, ready.state, tiny.params, records, batching), scores)


def test_logits_that_are_no_numbers_answer_nothing():
    """Not even the label 0, which is where an argmax finds them."""
    lost = jnp.full((2, 1, 3), jnp.nan).at[1, 0, 0].set(1.0)  # one number does not help
    labels = jnp.zeros((2, 1), jnp.int32)
    for protocol in get_args(Forced):
        np.testing.assert_array_equal(answered(lost, labels, protocol), [0, 0])
    pair = mj.Pair(jnp.zeros((2, 1)), labels)
    ruined: Any = lambda params, pairs: jnp.concatenate([lost, lost])  # noqa: E731
    found = judged(ruined, ruined, {}, mj.Example(pair, pair, pair))
    assert not np.any(found["agreement"]), "nothing is as before"


def test_an_edit_that_ruins_the_model_has_failed(
    ready: Ready, tiny: Any, records: list[TokenRecord]
):
    """It answers nothing, nothing is as before, and it is counted."""
    def ruined(*args: Any) -> Any:
        return jax.tree.map(lambda x: x * jnp.nan, ready.editor.edit(*args))

    scorer = make_scorer(
        ready.editor._replace(edit=ruined), mj.sequence_logits(ready.tail), ready.trunk
    )
    found = score(scorer, ready.state, tiny.params, records)
    metrics = summarise(found)
    assert metrics["failed"].value == 1 and np.all(np.isinf(found.edit_loss))
    assert metrics["edit_success"].value == metrics["locality_agreement"].value == 0
    assert metrics["locality_kl"].value == metrics["perplexity_drawdown"].value == np.inf


def test_an_empty_handed_editor_moves_nothing(tiny: Any, records: list[TokenRecord]):
    idle = made_ready(tiny, records, alpha=0.0)
    scores = score(idle.scorer, idle.state, tiny.params, records, Batching(batch=5))
    assert_equal(scores.success, scores.success_before)
    assert_equal(scores.accuracy, scores.accuracy_before)
    metrics = summarise(scores)
    for name in ("locality_agreement", "locality_agreement_near", "locality_agreement_far"):
        assert metrics[name] == (1, 1, 1)
    assert metrics["drawdown"] == (0, 0, 0)
    np.testing.assert_allclose(metrics["locality_kl"], 0, atol=1e-6)
