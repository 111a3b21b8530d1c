"""The editor network: a low-rank residual MLP per kernel shape (paper, Eq. 3 and Table 6).

    z = [u; delta],   z <- z + relu(s * (U V z + b) + o), twice
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mend_jax.factors import Factors, group_sites, live, mask_rows, shape_of
from mend_jax.links.base import Link, Sited, observe_nothing


def residual_mlp(
    rank: int = 1920,
    blocks: int = 2,
    on: Literal["both", "separate", "u", "delta", "smaller"] = "both",
    shared: bool = True,
    identity: bool = True,
) -> Link:
    """The low-rank residual MLP of the paper (Eq. 3; "IDMLP" in the authors' code).

    Block:  z <- z + relu(s * (U V z + b) + o),  U [D, r], V [r, D], r = min(rank, D); s and o are
    one row per site of the shape (FiLM), present only when shared. U = 0 and V ~ N(0, 1) make it
    the identity at first; the ReLU has derivative 1 at 0, or it would never leave it.

    Args:
      rank: r; 1920 in the paper. blocks: 2 in the paper ("n_hidden" = 1).
      on: "both" transforms [u; delta] jointly; "separate" with a network each; "u", "delta" or
        "smaller" only that side (Table 6), the other passes.
      shared: one network per kernel shape, else one per site ("No sharing").
      identity: False is "No ID init": Xavier-uniform U and V, and no residual.
    """

    def sides(d_in: int, d_out: int) -> list[tuple[str, int]]:
        if on == "both":
            return [("both", d_in + d_out)]
        if on == "separate":
            return [("u", d_in), ("delta", d_out)]
        side = on if on != "smaller" else ("delta" if d_in > d_out else "u")
        return [(side, d_in if side == "u" else d_out)]

    def init(key: PRNGKeyArray, factors: Sited) -> tuple[PyTree, PyTree]:
        phi: dict[str, dict[str, Any]] = {}
        for group, sites in group_sites(factors, shared).items():
            phi[group] = {}
            for side, width in sides(*shape_of(factors[sites[0]])):
                net = []
                for _ in range(blocks):
                    key, key_u, key_v = jax.random.split(key, 3)
                    net.append(_init_block(key_u, key_v, width, rank, len(sites)))
                phi[group][side] = net
        return phi, {}

    def _init_block(
        key_u: PRNGKeyArray, key_v: PRNGKeyArray, width: int, rank: int, sites: int
    ) -> dict[str, Array]:
        r = min(rank, width)
        if identity:
            u, v = jnp.zeros((width, r)), jax.random.normal(key_v, (r, width))
        else:  # Xavier: gain sqrt(2) for U, 1 for V
            u = jax.random.uniform(key_u, (width, r), minval=-1, maxval=1)
            v = jax.random.uniform(key_v, (r, width), minval=-1, maxval=1)
            u, v = u * jnp.sqrt(12.0 / (width + r)), v * jnp.sqrt(6.0 / (width + r))
        block = {"U": u, "V": v, "b": jnp.zeros(width)}
        if shared:
            block |= {"scale": jnp.ones((sites, width)), "shift": jnp.zeros((sites, width))}
        return block

    def network(
        net: list[dict[str, Array]], rows: list[Float[Array, "*batch rows width"]]
    ) -> list[Float[Array, "*batch rows width"]]:
        """The blocks on all rows of a group at once: one product for all its sites."""
        counts = [x.shape[-2] for x in rows]
        z = jnp.concatenate(rows, axis=-2)
        for block in net:
            a = (z @ block["V"].T) @ block["U"].T + block["b"]
            if shared:
                a = a * _per_row(block["scale"], counts) + _per_row(block["shift"], counts)
            a = relu(a)
            z = z + a if identity else a
        starts = [sum(counts[:i]) for i in range(1, len(counts))]
        return jnp.split(z, starts, axis=-2)

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        del stats
        out = dict(factors)
        for group, sites in group_sites(factors, shared).items():
            for side, net in phi[group].items():
                if side == "both":
                    rows = [jnp.concatenate(factors[s], axis=-1) for s in sites]
                else:
                    rows = [getattr(factors[s], side) for s in sites]
                for site, z in zip(sites, network(net, rows), strict=True):
                    if side == "both":
                        d_in = factors[site].u.shape[-1]
                        out[site] = Factors(z[..., :d_in], z[..., d_in:])
                    else:
                        out[site] = out[site]._replace(**{side: z})
        return {site: mask_rows(out[site], live(factors[site])) for site in out}

    config = {
        "link": "residual_mlp",
        "rank": rank,
        "blocks": blocks,
        "on": on,
        "shared": shared,
        "identity": identity,
    }
    return Link(init, observe_nothing, apply, config)


def relu(x: Array) -> Array:
    """max(x, 0) with derivative 1 at 0 (`jax.nn.relu` has 0, and the identity never learns)."""
    return jnp.where(x >= 0, x, 0.0)


def _per_row(table: Float[Array, "sites width"], counts: list[int]) -> Float[Array, "rows width"]:
    rows = [jnp.broadcast_to(table[i], (n, table.shape[1])) for i, n in enumerate(counts)]
    return jnp.concatenate(rows)
