"""Learned step sizes: delta -> -alpha delta, one alpha per site (paper, Algorithm 2)."""

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from mend_jax.factors import Factors, natural
from mend_jax.links.base import Link, Sited, observe_nothing


def rate(initial: float = 1e-4, descent: bool = True) -> Link:
    """One learned step size alpha per site, folded into delta; `phi["alpha"] = {site: scalar}`.

    Args:
      initial: alpha before training (the paper's 1e-4).
      descent: W - alpha g, as the paper says. The authors' code adds instead: False reproduces it.
    """

    def init(key: PRNGKeyArray, factors: Sited) -> tuple[PyTree, PyTree]:
        del key
        sites = sorted(factors, key=natural)
        return {"alpha": {site: jnp.asarray(initial, jnp.float32) for site in sites}}, {}

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        del stats
        sign = -1.0 if descent else 1.0
        return {
            site: Factors(rows.u, rows.delta * (sign * phi["alpha"][site]))
            for site, rows in factors.items()
        }

    config = {"link": "rate", "initial": initial, "descent": descent}
    return Link(init, observe_nothing, apply, config)
