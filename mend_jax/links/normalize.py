"""The normaliser: x -> (x - mean) / std per coordinate, with running statistics (section 3.2)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mend_jax.factors import Factors, group_sites, live, mask_rows, shape_of
from mend_jax.links.base import Around, Link, Sited


class Moments(NamedTuple):
    """Running mean and sum of squared deviations of the live rows, per coordinate (Welford)."""

    rows: Float[Array, "*snapshots"]
    mean: Factors  # u: [*snapshots, d_in], delta: [*snapshots, d_out]
    m2: Factors


def normalize(
    shared: bool = True,
    order: Literal["batch", "site"] = "batch",
    on: Literal["both", "delta"] = "both",
) -> Link:
    """Centres and scales u and delta per coordinate, with statistics over all live rows seen.

    Variance is unbiased and 1e-7 is added to the standard deviation, as in the authors' code.

    Args:
      shared: one set of statistics per kernel shape, else one per site.
      order: "batch" merges a batch at once, over all sites of a shape. "site" does what the
        authors' step does: the rows of a site are normalised before those of later sites of its
        shape are counted; `stats` then holds one snapshot per site (a leading axis).
      on: "delta" leaves u as it is.

    Until two live rows were observed the output is NaN: an editor without statistics is no editor.
    """

    def init(key: PRNGKeyArray, factors: Sited) -> tuple[PyTree, PyTree]:
        del key
        stats = {}
        for group, sites in group_sites(factors, shared).items():
            d_in, d_out = shape_of(factors[sites[0]])
            lead = (len(sites),) if order == "site" else ()
            zero = Factors(jnp.zeros((*lead, d_in)), jnp.zeros((*lead, d_out)))
            stats[group] = Moments(jnp.zeros(lead), zero, zero)
        return {}, stats

    def observe(
        phi: PyTree, stats: PyTree, factors: Sited, around: Around | None = None
    ) -> PyTree:
        del phi, around
        new = {}
        for group, sites in group_sites(factors, shared).items():
            merge = _merge if order == "batch" else _merge_in_turn
            new[group] = merge(stats[group], [factors[site] for site in sites])
        return jax.lax.stop_gradient(new)

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        del phi
        out = {}
        for group, sites in group_sites(factors, shared).items():
            for index, site in enumerate(sites):
                moments = stats[group]
                if order == "site":
                    moments = jax.tree.map(lambda x, i=index: x[i], moments)
                rows = _standardise(moments, factors[site])
                out[site] = rows if on == "both" else Factors(factors[site].u, rows.delta)
        return out

    config = {"link": "normalize", "shared": shared, "order": order, "on": on}
    return Link(init, observe, apply, config)


def _merge(moments: Moments, parts: list[Factors]) -> Moments:
    """Adds the live rows of the parts to the moments (Chan, Golub and LeVeque 1983)."""
    keep = jnp.concatenate([live(part).ravel() for part in parts]).astype(jnp.float32)
    n = jnp.sum(keep)
    total = moments.rows + n
    share = n / jnp.maximum(total, 1.0)

    def side(mean: Array, m2: Array, rows: list[Array]) -> tuple[Array, Array]:
        x = jnp.concatenate([r.reshape(-1, r.shape[-1]) for r in rows])
        batch_mean = keep @ x / jnp.maximum(n, 1.0)
        batch_m2 = keep @ jnp.square(x - batch_mean[None])
        gap = batch_mean - mean
        return mean + gap * share, m2 + batch_m2 + jnp.square(gap) * moments.rows * share

    mean_u, m2_u = side(moments.mean.u, moments.m2.u, [p.u for p in parts])
    mean_delta, m2_delta = side(moments.mean.delta, moments.m2.delta, [p.delta for p in parts])
    return Moments(total, Factors(mean_u, mean_delta), Factors(m2_u, m2_delta))


def _merge_in_turn(snapshots: Moments, parts: list[Factors]) -> Moments:
    """The moments after each part; before the first one they are those of the last snapshot."""
    moments = jax.tree.map(lambda x: x[-1], snapshots)
    after = []
    for part in parts:
        moments = _merge(moments, [part])
        after.append(moments)
    return jax.tree.map(lambda *x: jnp.stack(x), *after)


def _standardise(moments: Moments, factors: Factors) -> Factors:
    ready = moments.rows >= 2

    def side(x: Array, mean: Array, m2: Array) -> Array:
        std = jnp.sqrt(m2 / jnp.maximum(moments.rows - 1, 1.0))
        std = jnp.where(ready, std + 1e-7, jnp.nan)
        return (x - jnp.broadcast_to(mean, x.shape)) / jnp.broadcast_to(std, x.shape)

    rows = Factors(
        side(factors.u, moments.mean.u, moments.m2.u),
        side(factors.delta, moments.mean.delta, moments.m2.delta),
    )
    return mask_rows(rows, live(factors))
