"""The whitened link: its keys answer raw inputs with the inverse correlation, as ROME's do."""

import jax
import numpy as np

import mend_jax as mj
from mend_jax.links import from_config

RIDGE, D_IN, D_OUT = 0.1, 5, 7


def rows(seed: int, *lead: int) -> dict[str, mj.Factors]:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(D_IN, D_IN)).astype(np.float32)
    u = rng.normal(size=(*lead, 9, D_IN)).astype(np.float32) @ mix + 1.0
    delta = rng.normal(size=(*lead, 9, D_OUT)).astype(np.float32)
    delta[..., -2:, :] = 0.0  # dead rows: padding
    return {"site": mj.Factors(u, delta)}


def observed(link: mj.Link, factors: dict[str, mj.Factors]) -> tuple:
    phi, stats = link.init(jax.random.key(0), factors)
    return phi, link.observe(phi, stats, factors)


def test_keys_meet_raw_inputs_with_the_inverse_correlation() -> None:
    factors = rows(0)
    link = mj.whitened(mj.chain(), RIDGE)
    phi, stats = observed(link, factors)
    u, delta = np.float64(factors["site"].u), np.float64(factors["site"].delta)
    weights = np.sum(delta**2, axis=-1)
    second = (u * weights[:, None]).T @ u / weights.sum()
    rms = np.sqrt(np.diagonal(second))
    correlation = second / np.outer(rms, rms)
    x = np.random.default_rng(1).normal(size=(4, D_IN))
    inverse = np.linalg.inv((1 - RIDGE) * correlation + RIDGE * np.eye(D_IN))
    expected = (x / rms) @ inverse @ (u / rms).T
    key = link.apply(phi, stats, factors)["site"].u
    np.testing.assert_allclose(x @ np.float64(key).T, expected, rtol=1e-4, atol=1e-5)


def test_the_whitener_is_made_anew_at_powers_of_two() -> None:
    link = mj.whitened(mj.chain(), RIDGE)
    phi, stats = link.init(jax.random.key(0), rows(0))
    changed = []
    for update in range(1, 10):
        before = stats["moments"]["site"].whitener
        stats = link.observe(phi, stats, rows(update))
        if np.any(before != stats["moments"]["site"].whitener):
            changed.append(update)
    assert changed == [1, 2, 4, 8]


def test_a_batch_is_observed_as_its_rows_and_applied_one_by_one() -> None:
    batch = rows(3, 2)
    link = mj.whitened(mj.chain(mj.normalize(), mj.residual_mlp(rank=3)), RIDGE)
    phi, stats = observed(link, batch)
    flat = {s: mj.Factors(f.u.reshape(-1, D_IN), f.delta.reshape(-1, D_OUT))
            for s, f in batch.items()}  # fmt: skip
    _, same = observed(link, flat)
    for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    together = jax.vmap(link.apply, (None, None, 0))(phi, stats, batch)
    for i in range(2):
        alone = link.apply(phi, stats, jax.tree.map(lambda x, i=i: x[i], batch))
        for name in ("u", "delta"):
            np.testing.assert_allclose(
                getattr(together["site"], name)[i], getattr(alone["site"], name), atol=1e-5
            )


def test_built_again_from_its_config() -> None:
    link = mj.whitened(mj.chain(mj.normalize(), mj.residual_mlp(rank=3)), RIDGE)
    phi, stats = observed(link, rows(5))
    again = from_config(link.config, {})
    a, b = link.apply(phi, stats, rows(6)), again.apply(phi, stats, rows(6))
    assert np.array_equal(a["site"].u, b["site"].u)
    assert np.array_equal(a["site"].delta, b["site"].delta)


def test_every_edit_has_unit_strength() -> None:
    link = mj.unit_strength()
    factors = {"site": mj.Factors(rows(7)["site"].u * 3.0, rows(7)["site"].delta * 0.2)}
    out, plain = link.apply({}, {}, factors)["site"], link.apply({}, {}, rows(7))["site"]
    own = np.sum(factors["site"].u * out.u, axis=-1)
    np.testing.assert_allclose(own, D_IN, rtol=1e-5)
    np.testing.assert_allclose(np.sum(np.square(out.delta)), D_OUT, rtol=1e-5)
    np.testing.assert_allclose(out.delta, plain.delta, rtol=1e-5)  # whatever the gradient's size
    zero = {"site": mj.Factors(np.zeros((2, D_IN)), np.zeros((2, D_OUT)))}
    gradient = jax.grad(lambda f: sum(x.sum() for x in link.apply({}, {}, f)["site"]))(zero)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
