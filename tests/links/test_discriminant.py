"""The discriminant link: its keys answer a fact's own phrasings, and nothing else."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mend_jax as mj
from mend_jax.links import Around, from_config

RIDGE, D_IN, D_OUT = 0.1, 5, 7
EDITS, OUTER, NEAR, ROWS = 6, 3, 2, 4


def batch(seed: int) -> tuple[dict[str, mj.Factors], Around]:
    """Edits, and their outer and locality pairs; some rows and some pairs are padding."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(D_IN, D_IN))
    fact = rng.normal(size=(EDITS, 1, 1, D_IN))

    def rows(k: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        u = (share * fact + rng.normal(size=(EDITS, k, ROWS, D_IN))) @ mix + 0.5
        delta = rng.normal(size=(EDITS, k, ROWS, D_OUT))
        delta[:, :, -1] = 0.0
        return np.float32(u), np.float32(delta)

    edit, outer, near = rows(1, 2.0), rows(OUTER, 2.0), rows(NEAR, 0.0)
    outer[1][0, -1] = 0.0  # two phrasings
    outer[1][1, 1:] = 0.0  # one
    near[1][2, -1] = 0.0
    near[1][3] = 0.0
    edit, outer, near = (mj.Factors(*map(jnp.asarray, x)) for x in (edit, outer, near))
    alone = mj.Factors(edit.u[:, 0], edit.delta[:, 0])
    return {"site": alone}, Around({"site": outer}, {"site": near})


def calibrated(link: mj.Link, batches: int = 1) -> tuple[Any, Any]:
    phi, stats = link.init(jax.random.key(0), batch(0)[0])
    for seed in range(batches):
        stats = link.observe(phi, stats, *batch(seed))
    return phi, stats


def pair_by_pair(around: Around, words: bool) -> tuple[np.ndarray, np.ndarray]:
    """T and D of the docstring, by loops over pairs of pairs, in float64."""
    means: list[list[list[np.ndarray]]] = []
    gradients: list[list[list[np.ndarray]]] = []
    seconds = []
    for side in around:
        u, delta = np.float64(side["site"].u), np.float64(side["site"].delta)
        means.append([])
        gradients.append([])
        for e in range(EDITS):
            means[-1].append([])
            gradients[-1].append([])
            for k in range(u.shape[1]):
                weight = np.sum(delta[e, k] ** 2, axis=-1)
                if weight.sum() == 0:
                    continue
                gradients[-1][-1].append(u[e, k].T @ delta[e, k] / np.sqrt(weight.sum()))
                weight /= weight.sum()
                means[-1][-1].append(weight @ u[e, k])
                seconds.append(np.einsum("r,ri,rj->ij", weight, u[e, k], u[e, k]))
    apart = []
    for own, mine, others in zip(gradients[0], *means, strict=True):
        kept = own if words else [x[:, None] for x in mine]
        same = [a @ b.T for i, a in enumerate(kept) for j, b in enumerate(kept) if i != j]
        found = np.mean(same or [kept[0] @ kept[0].T], axis=0)
        if others:
            cross = np.mean([np.outer(a, b) for a in mine for b in others], axis=0)
            found = found - (cross + cross.T) / 2
        apart.append(found)
    return np.mean(seconds, axis=0), np.mean(apart, axis=0)


@pytest.mark.parametrize("words", [False, True])
def test_keys_are_the_positive_part_of_the_discriminant(words: bool):
    link = mj.discriminant(mj.chain(), RIDGE, words)
    phi, stats = calibrated(link)
    factors, around = batch(0)
    total, apart = pair_by_pair(around, words)
    rms = np.sqrt(np.diagonal(total))
    ridged = (1 - RIDGE) * total + RIDGE * np.diag(rms**2)
    # generalised eigenproblem: D v = value * T v, v^T T v = 1, and M = sum value v v^T
    root = np.linalg.inv(np.linalg.cholesky(ridged))
    values, vectors = np.linalg.eigh(root @ apart @ root.T)
    vectors = root.T @ vectors
    metric = (vectors * np.maximum(values, 0.0)) @ vectors.T
    metric *= D_IN / np.trace(total @ metric)
    assert np.any(values < 0) and np.any(values > 0)
    key = link.apply(phi, stats, factors)["site"].u
    expected = np.float64(factors["site"].u) @ metric
    np.testing.assert_allclose(key, expected, rtol=1e-3, atol=1e-4)


def test_keys_look_where_facts_differ_and_phrasings_agree():
    """ROME's key, the inverse second moment, looks everywhere alike."""
    rng = np.random.default_rng(0)
    edits, phrasings = 400, 3

    def rows(fact: np.ndarray) -> mj.Factors:  # two coordinates tell the fact, three the phrasing
        words = 3.0 * rng.normal(size=(edits, phrasings, 1, 3))
        u = np.concatenate([np.broadcast_to(fact, (edits, phrasings, 1, 2)), words], axis=-1)
        return mj.Factors(jnp.float32(u), jnp.ones((edits, phrasings, 1, D_OUT)))

    fact, others = rng.normal(size=(2, edits, 1, 1, 2))
    around = Around({"site": rows(fact)}, {"site": rows(others)})
    edit = {"site": mj.Factors(*(x[:, 0] for x in around.outer["site"]))}
    link = mj.discriminant(mj.chain(), 0.01)
    phi, stats = link.init(jax.random.key(0), edit)
    stats = link.observe(phi, stats, edit, around)
    coordinates = np.asarray(stats["moments"]["site"].coordinates)
    metric = coordinates @ coordinates.T
    second = np.asarray(stats["moments"]["site"].total / stats["moments"]["site"].pairs)
    size = np.diagonal(metric) * np.diagonal(second)
    assert size[2:].max() < 0.1 * size[:2].min()
    rome = np.diagonal(np.linalg.inv(second)) * np.diagonal(second)
    assert rome[2:].min() > 0.9 * rome[:2].max()


def test_keys_tell_the_words_of_an_answer_apart():
    """What all rows of an edit share is as good a sign of the fact as what each row shares with its
    like, but brings a word where another is wanted."""
    rng = np.random.default_rng(0)
    edits, phrasings, rows = 400, 3, 4
    fact = np.broadcast_to(rng.normal(size=(edits, 1, 1, 2)), (edits, phrasings, rows, 2))
    word = np.broadcast_to(rng.normal(size=(edits, 1, rows, 2)), (edits, phrasings, rows, 2))
    wanted = np.broadcast_to(rng.normal(size=(edits, 1, rows, 64)), (edits, phrasings, rows, 64))
    outer = mj.Factors(jnp.float32(np.concatenate([fact, word], axis=-1)), jnp.float32(wanted))
    around = Around({"site": outer}, {"site": mj.Factors(*(x[:, :1] * 0 for x in outer))})
    edit = {"site": mj.Factors(*(x[:, 0] for x in outer))}
    link = mj.discriminant(mj.chain(), 0.01, words=True)
    phi, stats = link.init(jax.random.key(0), edit)
    key = link.apply(phi, link.observe(phi, stats, edit, around), edit)["site"].u
    answers = np.einsum("erd,esd->ers", outer.u[:, 1], key)  # of an edit, to another phrasing
    own = np.mean(np.einsum("err->er", answers))
    other = (np.sum(answers) - np.sum(np.einsum("err->er", answers))) / (edits * rows * (rows - 1))
    assert other < 0.55 * own  # by the rows' mean, which the fact fills, it is 0.8


def test_coordinates_are_made_at_powers_of_two_and_the_inner_link_starts_over():
    link = mj.discriminant(mj.normalize(on="delta"), RIDGE)
    phi, stats = link.init(jax.random.key(0), batch(0)[0])
    changed, rows = [], []
    for update in range(1, 10):
        before = stats["moments"]["site"].coordinates
        stats = link.observe(phi, stats, *batch(update))
        rows.append(float(stats["inner"]["5x7"].rows) / (EDITS * (ROWS - 1)))
        if np.any(before != stats["moments"]["site"].coordinates):
            changed.append(update)
    assert changed == [1, 2, 4, 8]
    assert rows == [1, 1, 2, 1, 2, 3, 4, 1, 2]


def test_training_leaves_the_coordinates_alone():
    link = mj.discriminant(mj.normalize(on="delta"), RIDGE)
    phi, stats = calibrated(link, 3)
    after = link.observe(phi, stats, batch(7)[0])
    for a, b in zip(*(jax.tree.leaves(s["moments"]) for s in (stats, after)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(after["inner"]["5x7"].rows) > float(stats["inner"]["5x7"].rows)


def test_applied_to_a_batch_as_one_by_one():
    link = mj.discriminant(mj.chain(mj.normalize(on="delta"), mj.residual_mlp(rank=3)), RIDGE)
    phi, stats = calibrated(link, 2)
    factors = batch(5)[0]
    together = jax.vmap(link.apply, (None, None, 0))(phi, stats, factors)
    for i in range(EDITS):
        alone = link.apply(phi, stats, jax.tree.map(lambda x, i=i: x[i], factors))
        for a, b in zip(together["site"], alone["site"], strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-5)


def test_built_again_from_its_config():
    link = mj.discriminant(mj.chain(mj.normalize(on="delta"), mj.residual_mlp(rank=3)), RIDGE)
    phi, stats = calibrated(link, 2)
    again = from_config(link.config, {})
    factors = jax.tree.map(lambda x: x[0], batch(6)[0])
    a, b = link.apply(phi, stats, factors), again.apply(phi, stats, factors)
    assert np.array_equal(a["site"].u, b["site"].u)
    assert np.array_equal(a["site"].delta, b["site"].delta)


def test_every_edit_has_unit_strength():
    link = mj.unit_strength()
    plain = jax.tree.map(lambda x: x[0], batch(7)[0])
    factors = {"site": mj.Factors(plain["site"].u * 3.0, plain["site"].delta * 0.2)}
    out, same = link.apply({}, {}, factors)["site"], link.apply({}, {}, plain)["site"]
    own = np.sum(factors["site"].u * out.u, axis=-1)
    np.testing.assert_allclose(own, D_IN, rtol=1e-5)
    np.testing.assert_allclose(np.sum(np.square(out.delta)), D_OUT, rtol=1e-5)
    np.testing.assert_allclose(out.delta, same.delta, rtol=1e-5)  # whatever the gradient's size
    zero = {"site": mj.Factors(jnp.zeros((2, D_IN)), jnp.zeros((2, D_OUT)))}
    gradient = jax.grad(lambda f: sum(x.sum() for x in link.apply({}, {}, f)["site"]))(zero)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
