"""Many edits as one value: the laws of every way to hold them, and k edits made at once."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_equal

import mend_jax as mj
from mend_jax.data.batches import shapes_of
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import Record
from mend_jax.data.token_records import TokenRecord, grouped
from mend_jax.data.training_batches import Draw, training_batches
from mend_jax.editors.held import (
    Holding,
    held_together,
    none_like,
    put,
    slots,
    take_out,
    with_room,
)
from mend_jax.editors.solved import Keyed, solve, solved, without_crosstalk
from mend_jax.editors.summed import summed
from mend_jax.evaluation.collating import collate_records, widths
from mend_jax.evaluation.teacher_forced import Batching, make_scorer, score
from mend_jax.runs.options import ExperimentError
from mend_jax.runs.splits import check_conflicts

SITES = r"layers_2/mlp/(up|down)_proj"
K = 3


def tokens(rng: np.random.Generator, n: int) -> Tokens:
    whole = rng.integers(61, size=n + 2).astype(np.int32)
    return Tokens(whole[:-1], np.asarray([n - 1, n], np.int32), whole[n:])


@pytest.fixture(scope="module")
def records() -> list[TokenRecord]:
    """Seven, so that one fills no group of three; with one or two rephrases."""
    rng = np.random.default_rng(3)
    return [
        TokenRecord(
            tokens(rng, 3),
            tuple(tokens(rng, 4) for _ in range(1 + i % 2)),
            (tokens(rng, 5),),
            ("near",),
            Record(f"p{i}", "t"),
        )
        for i in range(7)
    ]


@pytest.fixture(scope="module")
def editors(tiny: Any, records: list[TokenRecord]) -> tuple[mj.Editor, mj.Editor, Any]:
    """(joint, summed, state with statistics)."""
    joint = mj.mend(mj.sequence_loss(tiny.model), SITES, rank=4, alpha=0.05)
    apart = held_together(joint, summed())
    examples = next(training_batches(records, shapes_of(records), Draw(2, k=K), 0))
    assert examples.edit.labels.shape[:2] == (2, K)
    assert examples.outer.labels.shape[:2] == (2, 2 * K)
    one = jax.tree.map(lambda x: x[0], examples)
    state = apart.init(jax.random.key(0), tiny.params, one)
    stats, edits = jax.jit(apart.observe)(state, tiny.params, examples)
    state = state._replace(stats=stats)
    each = jax.jit(jax.vmap(apart.edit, (None, None, 0)))(state, tiny.params, examples)
    for site, part in each.items():  # the training form makes the same edits
        np.testing.assert_allclose(mj.norm(part), mj.norm(edits[site]), rtol=1e-4)
    return joint, apart, state


def test_summed_edits_are_the_sum_of_edits_made_alone(
    editors: tuple[mj.Editor, mj.Editor, Any], tiny: Any, records: list[TokenRecord]
):
    joint, apart, state = editors
    chosen = records[:K]
    shapes, width = shapes_of(chosen), widths(chosen)
    together = jax.tree.map(lambda x: x[0], collate_records([chosen], shapes, width))
    make = jax.jit(joint.edit)
    total: Any = {}
    for record in chosen:
        one = jax.tree.map(lambda x: x[0], collate_records([[record]], shapes, width))
        total = mj.add(total, make(state, tiny.params, one))
    got = jax.jit(apart.edit)(state, tiny.params, together)
    at_once = make(state, tiny.params, together)
    for site, part in total.items():
        wanted = mj.to_dense(part)
        np.testing.assert_allclose(mj.to_dense(got[site]), wanted, atol=1e-5)
        assert np.max(np.abs(mj.to_dense(at_once[site]) - wanted)) > 1e-3  # another reading


def test_records_are_scored_under_the_edit_of_their_group(
    editors: tuple[mj.Editor, mj.Editor, Any], tiny: Any, records: list[TokenRecord]
):
    _, apart, state = editors
    logits = mj.sequence_logits(tiny.model)
    scorer = make_scorer(apart, logits)
    seen: list[tuple[int, int]] = []
    scores = score(
        scorer, state, tiny.params, records, Batching(shapes_of(records), batch=2, k=K),
        progress=lambda *x: seen.append(x),
    )  # fmt: skip
    assert seen == [(6, 6)] and scores.success.shape == (6, 3)
    for number, group in enumerate(grouped(records, K)):
        example = collate_records([group], shapes_of(records), widths(records))
        example = jax.tree.map(lambda x: x[0], example)
        edit = jax.jit(apart.edit)(state, tiny.params, example)
        after = mj.merge(tiny.params, edit)
        for i, record in enumerate(group):
            for j, pair in enumerate(record.outer):
                said = logits(after, mj.Pair(mj.Inputs(pair.tokens[None], pair.read[None]), None))
                right = np.all(np.argmax(said[0], -1) == pair.labels)
                assert scores.success[number * K + i, j] == float(right)
            assert np.sum(~np.isnan(scores.success[number * K + i])) == len(record.outer)


def test_one_at_once_is_one_alone(
    editors: tuple[mj.Editor, mj.Editor, Any], tiny: Any, records: list[TokenRecord]
):
    joint, apart, state = editors
    example = jax.tree.map(
        lambda x: x[0], collate_records([records[:1]], shapes_of(records), widths(records))
    )
    a, b = (jax.jit(editor.edit)(state, tiny.params, example) for editor in (joint, apart))
    for site in a:
        assert_equal(a[site], b[site])


def test_too_few_records_for_a_group(
    editors: tuple[mj.Editor, mj.Editor, Any], tiny: Any, records: list[TokenRecord]
):
    _, apart, state = editors
    scorer = make_scorer(apart, mj.sequence_logits(tiny.model))
    with pytest.raises(ValueError, match="7 records are too few to edit 8 at once"):
        score(scorer, state, tiny.params, records, Batching(k=8))


def test_edits_that_contradict_each_other_are_named(records: list[TokenRecord]):
    other = records[1]._replace(record=Record("p1", "another"))
    check_conflicts([[*records, records[1]], [other]])  # the same twice, and in another group
    with pytest.raises(ExperimentError, match="'p1' to 't' and 'another'.*--allow-conflicts"):
        check_conflicts([records, [records[1], other]])


SHAPES = {"few": (2, 40, 60), "many": (2, 5, 60)}  # rows, d_in, d_out


def some_edits(kind: str, n: int) -> list[dict[str, mj.Factors]]:
    rng = np.random.default_rng(0)
    rows, d_in, d_out = SHAPES[kind]
    return [
        {
            "a": mj.Factors(
                jnp.asarray(rng.normal(size=(rows, d_in)), jnp.float32),
                jnp.asarray(rng.normal(size=(rows, d_out)), jnp.float32),
            )
        }
        for _ in range(n)
    ]


def kept_edits(way: str, kind: str, n: int) -> tuple[Holding, list[Any]]:
    """A way to hold edits, and edits as it keeps them; keys are what the edits' rows see."""
    edits = some_edits(kind, n)
    if way == "summed":
        pair = mj.Pair(jnp.zeros((1, 1)), jnp.zeros((1, 1), jnp.int32))  # not looked at
        return summed(), [summed().keep({}, pair, edit) for edit in edits]
    holding = solved(lambda params, pair: jnp.zeros(()), "a", ridge=0.3)
    return holding, [Keyed(edit, {"a": edit["a"].u + 0.1}) for edit in edits]


def test_edits_that_change_no_weights_are_not_added():
    pair = mj.Pair(jnp.zeros((1, 1)), jnp.zeros((1, 1), jnp.int32))  # not looked at
    for edit in ({}, {"states": jnp.zeros((1, 2))}, NoWeights(jnp.zeros(2))):
        with pytest.raises(ValueError, match="the editor changes no weights"):
            summed().keep({}, pair, edit)


class NoWeights(NamedTuple):
    """An edit of another kind."""

    text: jax.Array


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("way", ["summed", "solved"])
class TestEveryHolding:
    """Whatever the way: a value of fixed size, under one program."""

    def test_one_by_one_is_all_at_once(self, way: str, kind: str):
        holding, kept = kept_edits(way, kind, 3)
        held = holding.hold(none_like(kept[0]), 4)
        assert not jnp.any(holding.list(held)) and not np.any(dense(holding, held))
        sizes = jax.tree.map(jnp.shape, held)
        add = jax.jit(lambda held, kept: holding.add(held, kept))
        for one in kept:
            held = add(held, one)
        assert add._cache_size() == 1 and jax.tree.map(jnp.shape, held) == sizes
        np.testing.assert_array_equal(holding.list(held), [True, True, True, False])
        together = holding.hold(jax.tree.map(lambda *x: jnp.stack(x), *kept), 3)
        np.testing.assert_allclose(dense(holding, held), dense(holding, together), atol=1e-4)

    def test_removed_is_never_added(self, way: str, kind: str):
        holding, kept = kept_edits(way, kind, 3)
        held = holding.hold(jax.tree.map(lambda *x: jnp.stack(x), *kept), 3)
        without = jax.jit(holding.remove)(held, 1)
        np.testing.assert_array_equal(holding.list(without), [True, False, True])
        others = holding.hold(jax.tree.map(lambda *x: jnp.stack(x), kept[0], kept[2]), 2)
        wanted = dense(holding, others)
        np.testing.assert_allclose(dense(holding, without), wanted, atol=1e-4)
        again = holding.add(without, kept[1])  # into the slot that is free
        np.testing.assert_allclose(dense(holding, again), dense(holding, held), atol=1e-4)

    def test_a_full_value_stays_as_it_is(self, way: str, kind: str):
        holding, kept = kept_edits(way, kind, 3)
        full = holding.hold(jax.tree.map(lambda *x: jnp.stack(x), *kept[:2]), 2)
        assert_equal(jax.jit(holding.add)(full, kept[2]), full)
        with pytest.raises(ValueError, match="all 2 slots are in use, and nothing was added"):
            holding.add(full, kept[2])
        with pytest.raises(ValueError, match="3 edits are more than a capacity of 2"):
            holding.hold(jax.tree.map(lambda *x: jnp.stack(x), *kept), 2)


def test_a_full_value_has_room_in_twice_the_slots():
    kept = [{"x": jnp.arange(3.0) + i} for i in range(6)]
    held = slots(none_like(kept[0]), 0, 2)
    sizes = []
    for one in kept:
        held = put(with_room(held, 1), one)
        sizes.append(len(held.used))
    assert sizes == [2, 2, 4, 4, 8, 8] and with_room(held, 2) is held
    wanted = np.stack([one["x"] for one in kept])
    np.testing.assert_array_equal(held.kept["x"], np.pad(wanted, [(0, 2), (0, 0)]))
    assert held.used.tolist() == [True] * 6 + [False] * 2
    assert len(with_room(held, 11).used) == 32 and len(with_room(take_out(held, 0), 3).used) == 8


def dense(holding: Holding, held: Any) -> np.ndarray:
    return np.asarray(mj.to_dense(holding.apply(held)["a"]))


def test_a_sum_is_the_sum():
    """As rows where they are few, as a matrix where they are many; and of matrices."""
    for kind in SHAPES:
        edits = some_edits(kind, 3)
        held = summed().hold(jax.tree.map(lambda *x: jnp.stack(x), *edits), 3)
        part = summed().apply(held)["a"]
        assert isinstance(part, mj.Dense if kind == "many" else mj.Factors)
        wanted = sum(mj.to_dense(edit["a"]) for edit in edits)
        np.testing.assert_allclose(mj.to_dense(part), wanted, atol=1e-5)
        matrices = [{"a": mj.Dense(mj.to_dense(edit["a"]))} for edit in edits]
        held = summed().hold(none_like(matrices[0]), 3)
        for one in matrices:
            held = summed().add(held, one)
        np.testing.assert_allclose(dense(summed(), held), wanted, atol=1e-5)
        with pytest.raises(ValueError, match="of which only the sum is kept: add the negative"):
            summed().remove(held, 0)


def test_without_crosstalk_every_edit_answers_its_keys_as_if_alone():
    """Keys that differ, and a dead row in each edit; exact without ridge, half-way with much."""
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(4, 3, 30)).astype("f")
    keys[:, 2] = 0.0
    u = keys + 0.1 * rng.normal(size=keys.shape).astype("f")
    edits = mj.Factors(jnp.asarray(u * (keys != 0)), jnp.float32(rng.normal(size=(4, 3, 7))))
    wanted = np.einsum("krd,ksd,kso->kro", keys, *edits)

    def answers(part: mj.Factors) -> np.ndarray:
        return np.einsum("krd,jsd,jso->kro", keys, part.u, part.delta)

    ridges = (1.0, 1e-6)
    gaps = [
        np.abs(answers(part) - wanted).max()
        for part in (edits, *(without_crosstalk(jnp.asarray(keys), edits, r) for r in ridges))
    ]
    assert gaps[0] > 1.5 * gaps[1] > 100 * gaps[2] and gaps[2] < 1e-2
    one = jax.tree.map(lambda x: x[:1], edits)
    same = without_crosstalk(jnp.asarray(keys[:1]), one, 0.1)
    np.testing.assert_allclose(same.delta, one.delta, atol=1e-6)


def test_more_rows_than_features_are_solved_among_the_features():
    """Equals the least-squares problem among the rows, in float64; dead rows keep their deltas."""
    rng = np.random.default_rng(1)
    k, rows, d_in = 5, 4, 6
    keys = rng.normal(size=(k, rows, d_in))
    keys[:, 3] = 0.0
    u = (keys + 0.3 * rng.normal(size=keys.shape)) * (keys != 0)
    delta = rng.normal(size=(k, rows, 7))
    flat, answers = delta.reshape(k * rows, -1), keys.reshape(-1, d_in) @ u.reshape(-1, d_in).T
    off = answers * (1 - np.kron(np.eye(k), np.ones((rows, rows))))
    shift = 0.1 * np.mean(np.abs(np.diagonal(answers))[np.any(keys != 0, -1).reshape(-1)])
    moved = flat - np.linalg.solve(answers + shift * np.eye(k * rows), off @ flat)
    edits = mj.Factors(jnp.float32(u), jnp.float32(delta))
    got = without_crosstalk(jnp.float32(keys), edits, 0.1)
    np.testing.assert_allclose(got.delta.reshape(k * rows, -1), moved, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(got.delta[:, 3], edits.delta[:, 3])


def test_a_batch_of_systems_is_solved_one_by_one():
    """Batches of LU decompositions side by side can hang the CPU backend."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 5, 5)) + 3 * np.eye(5), rng.normal(size=(3, 5, 2))
    weights = rng.normal(size=b.shape)

    def total(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(weights * jax.vmap(solve)(a, b))

    text = str(jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(a, b))
    found = re.findall(r"\[([\d,]+)\] \w+:i32\S+ \w+:i32\S+ = lu ", text)
    assert found and set(found) == {"5,5"}, found
    with jax.enable_x64(True):
        got = jax.grad(total, argnums=(0, 1))(jnp.asarray(a), jnp.asarray(b))
    back = np.linalg.solve(np.swapaxes(a, 1, 2), weights)
    np.testing.assert_allclose(got[1], back, rtol=1e-9)
    by_a = -back @ np.swapaxes(np.linalg.solve(a, b), 1, 2)
    np.testing.assert_allclose(got[0], by_a, rtol=1e-9)


def test_solved_edits_of_an_editor(
    editors: tuple[mj.Editor, mj.Editor, Any], tiny: Any, records: list[TokenRecord]
):
    joint, _, state = editors
    loss = mj.sequence_loss(tiny.model)
    editor = held_together(joint, solved(loss, SITES, ridge=1e-5))
    chosen = records[:K]
    shapes, width = shapes_of(chosen), widths(chosen)
    together = jax.tree.map(lambda x: x[0], collate_records([chosen], shapes, width))
    edit = jax.jit(editor.edit)(state, tiny.params, together)
    trained = jax.jit(editor.observe)(state, tiny.params, jax.tree.map(lambda x: x[None], together))
    for site, part in trained[1].items():
        assert mj.to_dense(part).shape[1:] == mj.to_dense(edit[site]).shape
    capture, make = jax.jit(mj.capture(loss, SITES)), jax.jit(joint.edit)
    for record in chosen:
        example = jax.tree.map(
            lambda x: x[0], collate_records([[record]], shapes, width)
        )
        factors = capture(tiny.params, example.edit)[1]
        alone = make(state, tiny.params, example)
        for site, rows in factors.items():
            keys = np.asarray(rows.u) * np.any(np.asarray(rows.delta) != 0, axis=-1, keepdims=True)
            gap = keys @ (mj.to_dense(edit[site]) - mj.to_dense(alone[site]))
            size = np.abs(keys @ mj.to_dense(alone[site])).max()
            assert np.abs(gap).max() < 0.05 * size, site
