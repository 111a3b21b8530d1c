"""A link that lets others work where the phrasings of one fact are close, and other facts far.

The answer of an edit u' delta'^T to an input x is (x . u') delta'. It should be large if x puts
the edited fact in other words and zero if x asks for another fact; but activations of one layer
share a few strong directions, and x . u is large for nearly everything. Among the keys u' = M u,
the one that sets a fact's own phrasings furthest apart from its neighbours, as measured by the
spread of x . M u over unrelated x and u, is Fisher's:

    M = T^{-1} D T^{-1},    T = E[x x^T],    D = E[x_e x_outer^T] - E[x_e x_loc^T]

An answer of many tokens has as many rows, and x is their mean: facts are told apart, the words of
one answer are not. By words, the first term is E[G_e G_outer^T], G = sum_r u_r delta_r^T / |delta|
the gradient of a phrasing: each word meets its like in other phrasings, not the words beside it.
Of M the positive part is taken, M = F F^T, so that every input answers to its own key. In the
coordinates y = F^T x, where the inner link works, x . u' becomes y . g(y_u) for whatever g that is.
ROME's key (Meng et al. 2022, Eq. 2) is T^{-1} u: M with the identity in the place of D.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mend_jax.factors import Factors, live, shape_of
from mend_jax.links.base import Around, Link, Sited


class PairMoments(NamedTuple):
    """Sums over observed examples, and the coordinates made of them: y = x @ coordinates.

    total: of x x^T over single pairs. apart: of D over examples. Each pair counts once, its rows
    by their share of |delta|^2: a position where the loss has no gradient says nothing about where
    an edit will be felt.
    """

    updates: Int[Array, ""]
    pairs: Float[Array, ""]
    examples: Float[Array, ""]
    total: Float[Array, "d_in d_in"]
    apart: Float[Array, "d_in d_in"]
    coordinates: Float[Array, "d_in d_in"]


def discriminant(inner: Link, ridge: float = 0.05, words: bool = False) -> Link:
    """`inner` in the coordinates that tell facts apart best; made by `Editor.calibrate`.

    They are made anew when the number of calibrated batches is a power of two, and the inner link
    then starts its statistics over. Steps of training leave them alone. Statistics are a few
    d_in x d_in matrices per site.

    Args:
      inner: e.g. `chain(residual_mlp(), unit_strength())`; observes and sees u in these
        coordinates, where the mean of y^2 is 1.
      ridge: share of the identity in the correlation matrix of the inputs, in (0, 1].
      words: tell the words of an answer apart too; for answers of many tokens.
    """

    def init(key: PRNGKeyArray, factors: Sited) -> tuple[PyTree, PyTree]:
        phi, stats = inner.init(key, factors)
        moments = {}
        for site, rows in factors.items():
            d = shape_of(rows)[0]
            zero, square = jnp.zeros(()), jnp.zeros((d, d))
            count = jnp.zeros((), jnp.int32)
            moments[site] = PairMoments(count, zero, zero, square, square, jnp.eye(d))
        return phi, {"moments": moments, "inner": stats}

    def observe(
        phi: PyTree, stats: PyTree, factors: Sited, around: Around | None = None
    ) -> PyTree:
        moments, inner_stats = stats["moments"], stats["inner"]
        if around is not None:
            moments = {
                site: _count(moments[site], around.outer[site], around.locality[site], ridge, words)
                for site in factors
            }
            updates = next(iter(moments.values())).updates
            fresh = inner.init(jax.random.key(0), factors)[1]
            inner_stats = jax.tree.map(
                lambda new, old: jnp.where(_renews(updates), new, old), fresh, inner_stats
            )
            around = Around(*(_express(moments, side) for side in around))
        inner_stats = inner.observe(phi, inner_stats, _express(moments, factors), around)
        return jax.lax.stop_gradient({"moments": moments, "inner": inner_stats})

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        moments = stats["moments"]
        out = inner.apply(phi, stats["inner"], _express(moments, factors))
        return {
            site: rows._replace(u=rows.u @ moments[site].coordinates.T)
            for site, rows in out.items()
        }

    config = {"link": "discriminant", "inner": inner.config, "ridge": ridge, "words": words}
    return Link(init, observe, apply, config)


def _express(moments: dict[str, PairMoments], factors: Sited) -> dict[str, Factors]:
    return {
        site: rows._replace(u=rows.u @ moments[site].coordinates) for site, rows in factors.items()
    }


def _renews(updates: Int[Array, ""]) -> Array:
    return updates & (updates - 1) == 0


def _count(
    old: PairMoments, outer: Factors, locality: Factors, ridge: float, words: bool
) -> PairMoments:
    """Counts a batch in (leading axes [edits, k]); at times makes the coordinates anew."""
    total, pairs = old.total, old.pairs
    means, present = [], []
    for rows in (outer, locality):
        share = jnp.where(live(rows), jnp.sum(jnp.square(rows.delta), axis=-1), 0.0)
        weight = jnp.sum(share, axis=-1, keepdims=True)
        share = share / jnp.where(weight > 0, weight, 1.0)
        u = rows.u.reshape(-1, rows.u.shape[-1])
        total = total + (u * share.reshape(-1, 1)).T @ u
        present.append((weight[..., 0] > 0).astype(jnp.float32))
        pairs = pairs + jnp.sum(present[-1])
        means.append(jnp.einsum("ekr,ekrd->ekd", share, rows.u))
    (mine, other), (k, near) = means, (jnp.sum(x, axis=-1) for x in present)
    mean = Factors(mine[:, :, None], present[0][..., None, None])  # one row a pair, all alike
    same = _agreement(outer if words else mean, k)
    scale = 1.0 / jnp.maximum(k * near, 1)
    cross = (mine.sum(1) * scale[:, None]).T @ other.sum(1)
    apart = old.apart + same - (cross + cross.T) / 2
    examples = old.examples + jnp.sum(k > 0).astype(jnp.float32)
    updates = old.updates + 1
    coordinates = jax.lax.cond(
        _renews(updates),
        lambda: _coordinates(
            total / jnp.maximum(pairs, 1), apart / jnp.maximum(examples, 1), ridge
        ),
        lambda: old.coordinates,
    )
    return PairMoments(updates, pairs, examples, total, apart, coordinates)


def _agreement(outer: Factors, k: Float[Array, "edits"]) -> Float[Array, "d_in d_in"]:
    """Sum over edits of the mean G_a G_b^T over ordered pairs of their k different phrasings.

    A phrasing that is alone counts with itself. No G is formed: its rows meet each other.
    """
    edits, pairs, rows, d_in = outer.u.shape
    square = jnp.sum(jnp.square(outer.delta), axis=(-2, -1), keepdims=True)
    unit = outer.delta * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
    unit, u = unit.reshape(edits, pairs * rows, -1), outer.u.reshape(edits, pairs * rows, d_in)
    pair = jnp.repeat(jnp.arange(pairs), rows)
    counts = (pair[:, None] != pair[None])[None] | (k <= 1)[:, None, None]
    agree = jnp.where(counts, jnp.einsum("erd,esd->ers", unit, unit), 0.0)
    agree = agree / jnp.maximum(k * jnp.maximum(k - 1, 1), 1)[:, None, None]
    return jnp.einsum("eri,erj->ij", u, jnp.einsum("ers,esj->erj", agree, u))


def _coordinates(
    total: Float[Array, "d_in d_in"], apart: Float[Array, "d_in d_in"], ridge: float
) -> Float[Array, "d_in d_in"]:
    """F of the docstring, at the scale where y^2 has mean 1: S R^{-T} P, the symmetric root P."""
    scale = 1.0 / (jnp.sqrt(jnp.diagonal(total)) + 1e-7)
    eye = jnp.eye(scale.shape[0])
    root = jnp.linalg.cholesky((1.0 - ridge) * total * scale[:, None] * scale[None] + ridge * eye)
    inverse = jax.scipy.linalg.solve_triangular(root, eye, lower=True)
    values, vectors = jnp.linalg.eigh(inverse @ (apart * scale[:, None] * scale[None]) @ inverse.T)
    positive = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]) @ vectors.T
    found = scale[:, None] * (inverse.T @ positive)
    square = jnp.sum((total @ found) * found) / scale.shape[0]
    return found / jnp.sqrt(jnp.maximum(square, 1e-30))
