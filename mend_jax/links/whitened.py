"""A link that lets others work where the activations of a site are uncorrelated.

The answer of an edit u' delta'^T to an input x is (x . u') delta'. Activations of one layer share a
few strong directions, so x . u is large for inputs that have nothing to do with the edit, and a
diagonal scale (`normalize`) cannot change that. In the coordinates

    w(x) = R^{-1} (x / rms),     R R^T = (1 - ridge) C + ridge I,

C being the correlation matrix (about zero) of the site's inputs, x . u' becomes w(x) . g(w(u)) for
whatever g the inner link is: the key of ROME (Meng et al. 2022, Eq. 2), learned around instead of
solved for.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mend_jax.factors import Factors, live, shape_of
from mend_jax.links.base import Link, Sited


class SecondMoment(NamedTuple):
    """Sum of u u^T over the live rows, weighted by |delta|^2; w(x) = x @ whitener.

    The whitener is made anew when `updates` is a power of two: a factorisation costs as much as a
    training step, and coordinates that keep still are easier to learn in.
    """

    updates: Int[Array, ""]
    weight: Float[Array, ""]
    total: Float[Array, "d_in d_in"]
    whitener: Float[Array, "d_in d_in"]


def whitened(inner: Link, ridge: float = 0.2) -> Link:
    """`inner` in whitened coordinates of u, with running second moments as statistics.

    Rows count by |delta|^2: a position where the edit loss has no gradient says nothing about where
    the edit will be felt. Statistics are d_in x d_in per site.

    Args:
      inner: e.g. `chain(normalize(), residual_mlp())`; observes and sees whitened rows.
      ridge: share of the identity in the correlation matrix, in (0, 1]; 1 is a diagonal scale.
    """

    def init(key: PRNGKeyArray, factors: Sited) -> tuple[PyTree, PyTree]:
        phi, stats = inner.init(key, factors)
        moments = {}
        for site, rows in factors.items():
            d_in, _ = shape_of(rows)
            moments[site] = SecondMoment(
                jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros((d_in, d_in)), jnp.eye(d_in)
            )
        return phi, {"moments": moments, "inner": stats}

    def observe(phi: PyTree, stats: PyTree, factors: Sited) -> PyTree:
        moments = {
            site: _count(stats["moments"][site], rows, ridge) for site, rows in factors.items()
        }
        inner_stats = inner.observe(phi, stats["inner"], _whiten(moments, factors))
        return jax.lax.stop_gradient({"moments": moments, "inner": inner_stats})

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        moments = stats["moments"]
        out = inner.apply(phi, stats["inner"], _whiten(moments, factors))
        return {
            site: rows._replace(u=rows.u @ moments[site].whitener.T) for site, rows in out.items()
        }

    config = {"link": "whitened", "inner": inner.config, "ridge": ridge}
    return Link(init, observe, apply, config)


def _whiten(moments: dict[str, SecondMoment], factors: Sited) -> dict[str, Factors]:
    return {
        site: rows._replace(u=rows.u @ moments[site].whitener) for site, rows in factors.items()
    }


def _count(moment: SecondMoment, rows: Factors, ridge: float) -> SecondMoment:
    """Counts the rows in; at times makes the whitener anew."""
    weights = jnp.where(live(rows), jnp.sum(jnp.square(rows.delta), axis=-1), 0.0).ravel()
    u = rows.u.reshape(-1, rows.u.shape[-1])
    weight = moment.weight + jnp.sum(weights)
    total = moment.total + (u * weights[:, None]).T @ u
    updates = moment.updates + 1
    whitener = jax.lax.cond(
        updates & (updates - 1) == 0,
        lambda: _whitener(total / jnp.maximum(weight, 1e-30), ridge),
        lambda: moment.whitener,
    )
    return SecondMoment(updates, weight, total, whitener)


def _whitener(
    second: Float[Array, "d_in d_in"], ridge: float
) -> Float[Array, "d_in d_in"]:
    """diag(1 / rms) R^{-T}."""
    scale = 1.0 / (jnp.sqrt(jnp.diagonal(second)) + 1e-7)
    eye = jnp.eye(scale.shape[0])
    correlation = second * scale[:, None] * scale[None, :]
    root = jnp.linalg.cholesky((1.0 - ridge) * correlation + ridge * eye)
    inverse = jax.scipy.linalg.solve_triangular(root, eye, lower=True)
    return scale[:, None] * inverse.T
