"""A link that gives every edit the same strength, however surprising its example was.

    u_r <- d_in u_r / |u_r|^2,    delta <- sqrt(d_out) delta / |delta|_F  (over a site's rows)

so that a row's answer to its own input, (u_r . u'_r) delta'_r, does not depend on |u_r|, and the
sum over rows has one size per site. Without it a few edits are far stronger than they need be, and
they are the ones that reach their neighbours. What is left to learn is how strong: `rate`.
"""

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from mend_jax.factors import Factors
from mend_jax.links.base import Link, Sited, observe_nothing


def unit_strength() -> Link:
    """Scales keys by their squared norm, as ROME does (Eq. 2), and deltas by their total norm.

    Inside `discriminant`, norms are those of its coordinates. Zero rows stay zero.
    """

    def init(key: PRNGKeyArray, factors: Sited) -> tuple[PyTree, PyTree]:
        del key, factors
        return {}, {}

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        del phi, stats
        return {site: _unit(rows) for site, rows in factors.items()}

    return Link(init, observe_nothing, apply, {"link": "unit_strength"})


def _unit(rows: Factors) -> Factors:
    d_in, d_out = rows.u.shape[-1], rows.delta.shape[-1]
    square_u = jnp.sum(jnp.square(rows.u), axis=-1, keepdims=True)
    square_delta = jnp.sum(jnp.square(rows.delta), axis=(-2, -1), keepdims=True)
    # where, not max: the derivative of sqrt at 0 is infinite
    safe_delta = jnp.where(square_delta > 0, square_delta, 1.0)
    return Factors(
        rows.u * (d_in / jnp.where(square_u > 0, square_u, 1.0)),
        rows.delta * jnp.sqrt(d_out / safe_delta),
    )
