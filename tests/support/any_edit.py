"""An edit of any base: random, and large enough to be seen."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import mend_jax as mj
from mend_jax.factors import Dense, Factors
from mend_jax.models.registry import Base
from mend_jax.sites import kernel_path


def an_edit(base: Base, size: float = 0.3, rows: int = 3) -> dict[str, Any]:
    """Of factors at the default sites, and of a matrix at the last of them."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for site in mj.default_sites(base):
        kernel: Any = base.params
        for name in kernel_path(base.params, site) or ():
            kernel = kernel[name]
        u, delta = (jnp.asarray(rng.standard_normal((rows, d)), jnp.float32) for d in kernel.shape)
        found[site] = Factors(u, size * delta)
    found[site] = Dense(found[site].u.T @ found[site].delta)
    return found
