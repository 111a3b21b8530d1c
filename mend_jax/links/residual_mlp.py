"""The editor network: a low-rank residual MLP per kernel shape (paper, Eq. 3 and Table 6).

    z = [u; delta],   z <- z + relu(s * (U V z + b) + o), twice
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mend_jax.factors import Factors, group_sites, live, mask_rows, shape_of
from mend_jax.links.base import Link, Sited, observe_nothing

On: TypeAlias = Literal["both", "separate", "u", "delta", "smaller"]
Block: TypeAlias = dict[str, Array]
"""U [D, r], V [r, D], b [D]; scale and shift [sites, D], if it is shared."""


def residual_mlp(
    rank: int = 1920,
    blocks: int = 2,
    on: On = "both",
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

    def init(key: PRNGKeyArray, factors: Sited) -> tuple[PyTree, PyTree]:
        phi: dict[str, dict[str, Any]] = {}
        for group, sites in group_sites(factors, shared).items():
            phi[group] = {}
            for side, width in _sides(on, *shape_of(factors[sites[0]])):
                net = []
                for _ in range(blocks):
                    key, *keys = jax.random.split(key, 3)
                    block = _init_block(keys, width, min(rank, width), identity)
                    net.append(block | _film(len(sites), width) if shared else block)
                phi[group][side] = net
        return phi, {}

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        del stats
        out = dict(factors)
        for group, sites in group_sites(factors, shared).items():
            for side, net in phi[group].items():
                rows = [_rows(factors[site], side) for site in sites]
                for site, z in zip(sites, _network(net, rows, identity), strict=True):
                    out[site] = _with_rows(out[site], side, z)
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


def _sides(on: On, d_in: int, d_out: int) -> list[tuple[str, int]]:
    """What the networks of one group see, and how wide it is."""
    if on == "both":
        return [("both", d_in + d_out)]
    if on == "separate":
        return [("u", d_in), ("delta", d_out)]
    side = on if on != "smaller" else ("delta" if d_in > d_out else "u")
    return [(side, d_in if side == "u" else d_out)]


def _rows(factors: Factors, side: str) -> Float[Array, "*batch rows width"]:
    return jnp.concatenate(factors, axis=-1) if side == "both" else getattr(factors, side)


def _with_rows(factors: Factors, side: str, z: Float[Array, "*batch rows width"]) -> Factors:
    if side != "both":
        return factors._replace(**{side: z})
    d_in = factors.u.shape[-1]
    return Factors(z[..., :d_in], z[..., d_in:])


def _init_block(keys: Sequence[PRNGKeyArray], width: int, r: int, identity: bool) -> Block:
    key_u, key_v = keys
    if identity:
        u, v = jnp.zeros((width, r)), jax.random.normal(key_v, (r, width))
    else:  # Xavier: gain sqrt(2) for U, 1 for V
        u = jax.random.uniform(key_u, (width, r), minval=-1, maxval=1)
        v = jax.random.uniform(key_v, (r, width), minval=-1, maxval=1)
        u, v = u * jnp.sqrt(12.0 / (width + r)), v * jnp.sqrt(6.0 / (width + r))
    return {"U": u, "V": v, "b": jnp.zeros(width)}


def _film(sites: int, width: int) -> Block:
    """One row per site of a network that several share."""
    return {"scale": jnp.ones((sites, width)), "shift": jnp.zeros((sites, width))}


def _network(
    net: list[Block], rows: list[Float[Array, "*batch _ width"]], identity: bool
) -> list[Float[Array, "*batch _ width"]]:
    """The blocks on all rows of a group at once: one product for all its sites."""
    counts = [x.shape[-2] for x in rows]
    z = jnp.concatenate(rows, axis=-2)
    for block in net:
        a = (z @ block["V"].T) @ block["U"].T
        a = a + jnp.broadcast_to(block["b"], a.shape)
        if "scale" in block:
            scale, shift = (_per_row(block[name], counts, a.shape) for name in ("scale", "shift"))
            a = a * scale + shift
        a = relu(a)
        z = z + a if identity else a
    starts = [sum(counts[:i]) for i in range(1, len(counts))]
    return jnp.split(z, starts, axis=-2)


def relu(x: Array) -> Array:
    """max(x, 0) with derivative 1 at 0 (`jax.nn.relu` has 0, and the identity never learns)."""
    return jnp.where(x >= 0, x, 0.0)


def _per_row(
    table: Float[Array, "sites width"], counts: list[int], shape: tuple[int, ...]
) -> Float[Array, "*batch rows width"]:
    rows = [jnp.broadcast_to(table[i], (n, table.shape[1])) for i, n in enumerate(counts)]
    return jnp.broadcast_to(jnp.concatenate(rows), shape)
