"""The links of the editor network, one by one, and chained."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, assert_equal

import mend_jax as mj
from mend_jax.links import LINKS, from_config, relu

SHAPES = {"l_0/up": (5, 7), "l_1/up": (5, 7), "l_0/down": (7, 5)}
WIDTH = 12  # of [u; delta], the same for all
KEY = jax.random.key(0)


def rows_of(seed: int, *lead: int, rows: int = 6) -> dict[str, mj.Factors]:
    """Random factors; in every site the second row is dead by u, the last by delta."""
    rng = np.random.default_rng(seed)

    def site(d_in: int, d_out: int) -> mj.Factors:
        u = 2.0 + 3.0 * rng.standard_normal((*lead, rows, d_in))
        delta = 0.01 * rng.standard_normal((*lead, rows, d_out))
        u[..., 1, :] = 0
        delta[..., -1, :] = 0
        return mj.Factors(jnp.asarray(u, jnp.float32), jnp.asarray(delta, jnp.float32))

    return {name: site(*shape) for name, shape in SHAPES.items()}


def living(*factors: mj.Factors) -> tuple[np.ndarray, np.ndarray]:
    """The live rows of all, as float64."""
    u, d = (
        np.concatenate([np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in side])
        for side in zip(*factors, strict=True)
    )
    keep = np.any(u != 0, axis=1) & np.any(d != 0, axis=1)
    return u[keep], d[keep]


def concatenate(*batches: dict[str, mj.Factors]) -> dict[str, mj.Factors]:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *batches)


def moved(phi: Any, seed: int = 5) -> Any:
    """Parameters off their initial values."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape).astype(np.float32), phi)


# ---------------------------------------------------------------------------------- normalize


@pytest.mark.parametrize("shared", [True, False])
def test_statistics_are_those_of_all_live_rows(shared: bool):
    link = mj.normalize(shared)
    batch = rows_of(0, 3)
    stats = link.observe(*link.init(KEY, rows_of(0)), batch)
    groups = (
        {"5x7": ["l_0/up", "l_1/up"], "7x5": ["l_0/down"]}
        if shared
        else {site: [site] for site in SHAPES}
    )
    assert sorted(stats) == sorted(groups)
    for group, sites in groups.items():
        u, delta = living(*(batch[site] for site in sites))
        assert stats[group].rows == len(u) == 12 * len(sites)
        assert_close(stats[group].mean, mj.Factors(u.mean(0), delta.mean(0)), 1e-5)
        m2 = mj.Factors(*(x.var(0) * len(x) for x in (u, delta)))
        assert_close(stats[group].m2, m2, 1e-5)


@pytest.mark.parametrize("order", ["batch", "site"])
def test_statistics_merged_are_statistics_at_once(order: str):
    link = mj.normalize(order=order)
    batches = [rows_of(seed, seed + 1) for seed in range(4)]
    phi, fresh = link.init(KEY, rows_of(0))
    stats = fresh
    for batch in batches:
        stats = link.observe(phi, stats, batch)
    at_once = link.observe(phi, fresh, concatenate(*batches))
    last = (lambda s: s) if order == "batch" else (lambda s: jax.tree.map(lambda x: x[-1], s))
    assert_close(last(stats), last(at_once), 1e-5)
    wanted = mj.normalize().observe(phi, mj.normalize().init(KEY, rows_of(0))[1], batches[0])
    assert_close(last(link.observe(phi, fresh, batches[0])), wanted, 1e-5)


def test_normalised_rows_have_mean_0_and_deviation_1_and_dead_ones_stay_dead():
    link = mj.normalize()
    batch = rows_of(0)
    phi, stats = link.init(KEY, batch)
    stats = link.observe(phi, stats, batch)
    out = link.apply(phi, stats, batch)
    for sites in (["l_0/up", "l_1/up"], ["l_0/down"]):
        for side, before in zip(
            living(*(out[s] for s in sites)), living(*(batch[s] for s in sites)), strict=True
        ):
            assert len(side) == len(before)
            np.testing.assert_allclose(side.mean(0), 0, atol=1e-5)
            scale = before.std(0, ddof=1)
            np.testing.assert_allclose(side.std(0, ddof=1), scale / (scale + 1e-7), rtol=1e-5)
    for factors in out.values():
        assert not np.any(factors.u[jnp.array([1, -1])])
        assert not np.any(factors.delta[jnp.array([1, -1])])


def test_in_site_order_a_site_does_not_see_later_ones():
    link, batch = mj.normalize(order="site"), rows_of(0)
    phi, stats = link.init(KEY, batch)
    stats = link.observe(phi, stats, batch)
    u, _ = living(batch["l_0/up"])
    wanted = (u - u.mean(0)) / (u.std(0, ddof=1) + 1e-7)
    assert_close(living(link.apply(phi, stats, batch)["l_0/up"])[0], wanted, 1e-5)
    u, _ = living(batch["l_1/up"])
    both, _ = living(batch["l_0/up"], batch["l_1/up"])
    wanted = (u - both.mean(0)) / (both.std(0, ddof=1) + 1e-7)
    assert_close(living(link.apply(phi, stats, batch)["l_1/up"])[0], wanted, 1e-5)


def test_without_statistics_there_is_no_edit():
    link, batch = mj.normalize(), rows_of(0)
    phi, stats = link.init(KEY, batch)
    for factors in link.apply(phi, stats, batch).values():
        alive = np.array([0, 2, 3, 4])
        assert np.all(np.isnan(factors.u[alive])) and np.all(np.isnan(factors.delta[alive]))


def test_dead_rows_change_nothing():
    """Not the statistics, and not the edit; whatever stands on their other side."""
    chain = mj.chain(mj.normalize(), mj.residual_mlp(rank=4), mj.rate(0.1))
    batch = rows_of(0)
    gone = jax.tree.map(lambda x: x[jnp.array([0, 2, 3, 4])], batch)
    loud = {s: mj.Factors(f.u.at[-1].set(1e3), f.delta.at[1].set(1e3)) for s, f in batch.items()}
    phi, fresh = chain.init(KEY, batch)
    phi = moved(phi)
    results = []
    for factors in (gone, batch, loud):
        stats = chain.observe(phi, fresh, factors)
        edit = chain.apply(phi, stats, factors)
        results.append((stats, {site: mj.to_dense(part) for site, part in edit.items()}))
    assert_close(results[1], results[0], 1e-5)
    assert_close(results[2], results[0], 1e-5)


# ------------------------------------------------------------------------------- residual_mlp


@pytest.mark.parametrize("on", ["both", "separate", "u", "delta", "smaller"])
def test_the_network_is_the_identity_at_first_and_learns(on: str):
    link, batch = mj.residual_mlp(rank=4, on=on), rows_of(0)
    phi, _ = link.init(KEY, batch)
    out = link.apply(phi, {}, batch)
    for site, factors in batch.items():
        np.testing.assert_array_equal(living(out[site])[0], living(factors)[0])
        np.testing.assert_array_equal(living(out[site])[1], living(factors)[1])

    def total(phi: Any) -> jax.Array:
        out = link.apply(phi, {}, batch).values()
        return sum(jnp.sum(f.u**2) + jnp.sum(f.delta**3) for f in out)

    gradient = jax.grad(total)(phi)
    for group in gradient.values():
        for net in group.values():
            for block in net:
                assert all(np.any(block[name]) for name in ("U", "b", "shift"))
                assert not np.any(block["V"])  # behind U = 0


def test_relu_has_derivative_1_at_0():
    slope = jax.vmap(jax.grad(relu))(jnp.array([-1.0, -0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(slope, [0, 1, 1, 1])


def test_the_block_is_the_papers_equation():
    """Eq. 3 in float64, per site; and without shared tables, and without the residual."""
    batch = rows_of(0)
    for shared, identity in ((True, True), (False, True), (True, False)):
        link = mj.residual_mlp(rank=4, shared=shared, identity=identity)
        phi = moved(link.init(KEY, batch)[0])
        out = link.apply(phi, {}, batch)
        for site, index, group in (("l_0/up", 0, "5x7"), ("l_1/up", 1, "5x7")):
            z = np.concatenate(living(batch[site]), axis=1)
            for block in phi[group if shared else site]["both"]:
                p = {name: np.asarray(x, np.float64) for name, x in block.items()}
                a = z @ p["V"].T @ p["U"].T + p["b"]
                if shared:
                    a = p["scale"][index] * a + p["shift"][index]
                z = (z if identity else 0) + np.maximum(a, 0)
            alive = np.array([0, 2, 3, 4])
            got = np.concatenate([out[site].u[alive], out[site].delta[alive]], axis=1)
            assert_close(got, z, 1e-5)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [  # per block 2 D r + D, and 2 D for each site of a shared shape; two blocks
        ({}, 2 * (2 * (2 * 12 * 4 + 12) + 2 * 12 * 3)),
        ({"rank": 1920}, 2 * (2 * (2 * 12 * 12 + 12) + 2 * 12 * 3)),
        ({"blocks": 1}, 2 * (2 * 12 * 4 + 12) + 2 * 12 * 3),
        ({"identity": False}, 2 * (2 * (2 * 12 * 4 + 12) + 2 * 12 * 3)),
        ({"shared": False}, 2 * 3 * (2 * 12 * 4 + 12)),
        ({"on": "separate"}, 2 * (2 * (2 * 12 * 4 + 12) + 2 * 12 * 3)),
        ({"on": "u"}, 2 * (2 * 12 * 4 + 12 + 2 * (5 * 2 + 7))),
        ({"on": "delta"}, 2 * (2 * 12 * 4 + 12 + 2 * (7 * 2 + 5))),
        ({"on": "smaller"}, 2 * (2 * 10 * 4 + 10 + 2 * (5 * 2 + 5))),
    ],
)
def test_parameter_counts(changes: dict[str, Any], wanted: int):
    link = mj.residual_mlp(**({"rank": 4} | changes))
    phi, stats = link.init(KEY, rows_of(0))
    assert sum(x.size for x in jax.tree.leaves(phi)) == wanted
    assert not stats


def test_the_size_of_the_papers_editors():
    """59,089,920 for distilGPT-2 (measured on the authors' code): three blocks' MLPs, rank 1920."""
    shapes = {}
    for i in (3, 4, 5):
        for name, (d_in, d_out) in {"c_fc": (768, 3072), "c_proj": (3072, 768)}.items():
            shapes[f"h_{i}/mlp/{name}"] = mj.Factors(
                jax.ShapeDtypeStruct((1, d_in), jnp.float32),
                jax.ShapeDtypeStruct((1, d_out), jnp.float32),
            )
    phi, _ = jax.eval_shape(lambda key: mj.residual_mlp().init(key, shapes), KEY)
    assert sum(x.size for x in jax.tree.leaves(phi)) == 59_089_920


def test_initial_values():
    wide = {"s": mj.Factors(jnp.zeros((1, 300)), jnp.zeros((1, 200)))}
    block = mj.residual_mlp(rank=100).init(KEY, wide)[0]["300x200"]["both"][0]
    assert not np.any(block["U"])
    assert abs(np.std(block["V"]) - 1) < 0.02  # N(0, 1), not Xavier
    block = mj.residual_mlp(rank=100, identity=False).init(KEY, wide)[0]["300x200"]["both"][0]
    assert abs(np.max(np.abs(block["U"])) - np.sqrt(12 / 600)) < 1e-3
    assert abs(np.max(np.abs(block["V"])) - np.sqrt(6 / 600)) < 1e-3


# -------------------------------------------------------------------------------- rate, chain


@pytest.mark.parametrize("descent", [True, False])
def test_the_rate_is_folded_in_with_its_sign(descent: bool):
    link, batch = mj.rate(0.25, descent), rows_of(0)
    phi, _ = link.init(KEY, batch)
    phi["alpha"]["l_1/up"] *= 2
    out = link.apply(phi, {}, batch)
    for site, alpha in {"l_0/up": 0.25, "l_1/up": 0.5, "l_0/down": 0.25}.items():
        wanted = (-alpha if descent else alpha) * mj.to_dense(batch[site])
        assert_close(mj.to_dense(out[site]), wanted, 1e-6)


def test_each_link_observes_what_the_one_before_puts_out():
    chain = mj.chain(mj.rate(0.5), mj.normalize(), mj.rate(0.1), mj.normalize())
    batch = rows_of(0, 2)
    phi, stats = chain.init(KEY, batch)
    stats = chain.observe(phi, stats, batch)
    plain = mj.normalize()
    halved = plain.observe(*plain.init(KEY, batch), mj.rate(0.5).apply(phi[0], {}, batch))
    assert_close(stats[1], halved, 1e-6)
    for moments in stats[3].values():  # mean 0, deviation 1; delta times -0.1
        np.testing.assert_allclose(moments.mean.delta, 0, atol=1e-6)
        np.testing.assert_allclose(moments.m2.u / (moments.rows - 1), 1.0, rtol=1e-4)
        np.testing.assert_allclose(moments.m2.delta / (moments.rows - 1), 0.01, rtol=1e-3)


def test_a_chain_is_vmapped_over_edits():
    chain = mj.chain(mj.normalize(), mj.residual_mlp(rank=4), mj.rate(0.1))
    batch = rows_of(0, 3)
    phi, stats = chain.init(KEY, rows_of(0))
    phi = moved(phi)
    stats = chain.observe(phi, stats, batch)
    together = jax.vmap(chain.apply, (None, None, 0))(phi, stats, batch)
    alone = [chain.apply(phi, stats, jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(3)]
    assert_close(together, jax.tree.map(lambda *x: jnp.stack(x), *alone), 1e-5)


def test_no_gradient_through_the_statistics():
    chain, batch = mj.chain(mj.rate(0.5), mj.normalize()), rows_of(0)
    phi, stats = chain.init(KEY, batch)

    def total(phi: Any) -> jax.Array:
        return sum(jnp.sum(x) for x in jax.tree.leaves(chain.observe(phi, stats, batch)))

    assert not any(np.any(g) for g in jax.tree.leaves(jax.grad(total)(phi)))


@pytest.mark.parametrize("on", ["both", "smaller"])
def test_a_chain_is_built_again_from_its_config(on: str):
    chain = mj.chain(
        mj.normalize(shared=False, order="site"),
        mj.residual_mlp(rank=3, blocks=1, on=on, shared=False, identity=False),
        mj.rate(0.3, descent=False),
    )
    again = from_config(chain.config, {})
    assert again.config == chain.config
    batch = rows_of(0)
    state, same = chain.init(KEY, batch), again.init(KEY, batch)
    assert_equal(same, state)
    stats = chain.observe(*state, batch)
    assert_equal(again.observe(*state, batch), stats)
    assert_equal(again.apply(state[0], stats, batch), chain.apply(state[0], stats, batch))


def test_own_links_by_name_and_unknown_ones_named():
    def double(by: float = 2.0) -> mj.Link:
        return mj.rate(by, descent=False)._replace(config={"link": "double", "by": by})

    config = mj.chain(mj.normalize(), double(3.0)).config
    link = from_config(config, {"double": double})
    assert link.config == config
    with pytest.raises(ValueError, match="'double'.*normalize, rate, residual_mlp"):
        from_config(config, {})
    assert "double" not in LINKS
