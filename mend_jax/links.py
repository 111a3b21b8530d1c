"""Links: the paper's editor network, as small maps on factors that chain like optax.

    normalize   u, delta  ->  (x - mean) / std, running statistics           (paper, section 3.2)
    residual_mlp  z = [u; delta],  z <- z + relu(s (U V z + b) + o), twice    (Eq. 3, Table 6)
    rate        delta  ->  -alpha delta                                      (Algorithm 2)

A link acts on all sites at once, `{site: Factors}`, because sites of one shape share a network.
Dead rows (u = 0 or delta = 0: padding, positions without gradient) come out as zero rows.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mend_jax.factors import Factors, group_sites, live, mask_rows, natural, shape_of

Sited = Mapping[str, Factors]


class Link(NamedTuple):
    """One step of a chain: learned parameters `phi`, running statistics `stats`, pure functions.

    init(key, factors) -> (phi, stats); only the shapes of `factors` are used.
    observe(phi, stats, factors) -> stats; no gradient; `factors` may have leading batch axes.
    apply(phi, stats, factors) -> factors; for one edit, vmappable.
    config: how to build the link again, `{"link": name, **arguments}` (for saved editors).
    """

    init: Callable[[PRNGKeyArray, Sited], tuple[PyTree, PyTree]]
    observe: Callable[[PyTree, PyTree, Sited], PyTree]
    apply: Callable[[PyTree, PyTree, Sited], dict[str, Factors]]
    config: dict[str, Any]


def chain(*links: Link) -> Link:
    """The links one after the other; each observes what the one before puts out."""

    def init(key: PRNGKeyArray, factors: Sited) -> tuple[PyTree, PyTree]:
        keys = jax.random.split(key, max(len(links), 1))
        states = [link.init(k, factors) for link, k in zip(links, keys, strict=False)]
        return tuple(phi for phi, _ in states), tuple(stats for _, stats in states)

    def observe(phi: PyTree, stats: PyTree, factors: Sited) -> PyTree:
        after = []
        for link, p, s in zip(links, phi, stats, strict=True):
            after.append(link.observe(p, s, factors))
            factors = link.apply(p, after[-1], factors)
        return jax.lax.stop_gradient(tuple(after))

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        for link, p, s in zip(links, phi, stats, strict=True):
            factors = link.apply(p, s, factors)
        return dict(factors)

    config = {"link": "chain", "links": [link.config for link in links]}
    return Link(init, observe, apply, config)


class Moments(NamedTuple):
    """Running mean and sum of squared deviations of the live rows, per coordinate (Welford)."""

    rows: Float[Array, "*snapshots"]
    mean: Factors  # u: [*snapshots, d_in], delta: [*snapshots, d_out]
    m2: Factors


def normalize(shared: bool = True, order: Literal["batch", "site"] = "batch") -> Link:
    """Centres and scales u and delta per coordinate, with statistics over all live rows seen.

    Variance is unbiased and 1e-7 is added to the standard deviation, as in the authors' code.

    Args:
      shared: one set of statistics per kernel shape, else one per site.
      order: "batch" merges a batch at once, over all sites of a shape. "site" does what the
        authors' step does: the rows of a site are normalised before those of later sites of its
        shape are counted; `stats` then holds one snapshot per site (a leading axis).

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

    def observe(phi: PyTree, stats: PyTree, factors: Sited) -> PyTree:
        del phi
        new = {}
        for group, sites in group_sites(factors, shared).items():
            if order == "batch":
                new[group] = _merge(stats[group], [factors[site] for site in sites])
                continue
            moments = jax.tree.map(lambda x: x[-1], stats[group])
            snapshots = []
            for site in sites:
                moments = _merge(moments, [factors[site]])
                snapshots.append(moments)
            new[group] = jax.tree.map(lambda *x: jnp.stack(x), *snapshots)
        return jax.lax.stop_gradient(new)

    def apply(phi: PyTree, stats: PyTree, factors: Sited) -> dict[str, Factors]:
        del phi
        out = {}
        for group, sites in group_sites(factors, shared).items():
            for index, site in enumerate(sites):
                moments = stats[group]
                if order == "site":
                    moments = jax.tree.map(lambda x, i=index: x[i], moments)
                out[site] = _standardise(moments, factors[site])
        return out

    return Link(init, observe, apply, {"link": "normalize", "shared": shared, "order": order})


def residual_mlp(
    rank: int = 1920,
    blocks: int = 2,
    on: Literal["both", "separate", "u", "delta", "smaller"] = "both",
    shared: bool = True,
    identity: bool = True,
    activation: Literal["relu", "gelu", "linear"] = "relu",
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
            a = ACTIVATIONS[activation](a)
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
        "activation": activation,
    }
    return Link(init, _observe_nothing, apply, config)


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
    return Link(init, _observe_nothing, apply, config)


def relu(x: Array) -> Array:
    """max(x, 0) with derivative 1 at 0 (`jax.nn.relu` has 0, and the identity never learns)."""
    return jnp.where(x >= 0, x, 0.0)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "gelu": jax.nn.gelu,
    "linear": lambda x: x,
}

LINKS: dict[str, Callable[..., Link]] = {
    "normalize": normalize,
    "residual_mlp": residual_mlp,
    "rate": rate,
}


def from_config(config: Mapping[str, Any], links: Mapping[str, Callable[..., Link]]) -> Link:
    """Builds the chain that `Link.config` describes.

    Args:
      config: a link's `config`.
      links: your own factories by name, beside those of this module.

    Raises:
      ValueError: a link is in neither; the known ones are named.
    """
    arguments = dict(config)
    name = arguments.pop("link")
    known = {**LINKS, **links}
    if name == "chain":
        return chain(*(from_config(link, links) for link in arguments["links"]))
    if name not in known:
        raise ValueError(f"no link is called {name!r}; known: {', '.join(sorted(known))}")
    return known[name](**arguments)


def _observe_nothing(phi: PyTree, stats: PyTree, factors: Sited) -> PyTree:
    del phi, factors
    return stats


def _per_row(table: Float[Array, "sites width"], counts: list[int]) -> Float[Array, "rows width"]:
    rows = [jnp.broadcast_to(table[i], (n, table.shape[1])) for i, n in enumerate(counts)]
    return jnp.concatenate(rows)


def _merge(moments: Moments, parts: list[Factors]) -> Moments:
    """Adds the live rows of the parts to the moments (Chan, Golub and LeVeque 1983)."""
    keep = jnp.concatenate([live(part).ravel() for part in parts]).astype(jnp.float32)
    n = jnp.sum(keep)
    total = moments.rows + n
    share = n / jnp.maximum(total, 1.0)

    def side(mean: Array, m2: Array, rows: list[Array]) -> tuple[Array, Array]:
        x = jnp.concatenate([r.reshape(-1, r.shape[-1]) for r in rows])
        batch_mean = keep @ x / jnp.maximum(n, 1.0)
        batch_m2 = keep @ jnp.square(x - batch_mean)
        gap = batch_mean - mean
        return mean + gap * share, m2 + batch_m2 + jnp.square(gap) * moments.rows * share

    mean_u, m2_u = side(moments.mean.u, moments.m2.u, [p.u for p in parts])
    mean_delta, m2_delta = side(moments.mean.delta, moments.m2.delta, [p.delta for p in parts])
    return Moments(total, Factors(mean_u, mean_delta), Factors(m2_u, m2_delta))


def _standardise(moments: Moments, factors: Factors) -> Factors:
    ready = moments.rows >= 2

    def side(x: Array, mean: Array, m2: Array) -> Array:
        std = jnp.sqrt(m2 / jnp.maximum(moments.rows - 1, 1.0))
        return (x - mean) / jnp.where(ready, std + 1e-7, jnp.nan)

    rows = Factors(
        side(factors.u, moments.mean.u, moments.m2.u),
        side(factors.delta, moments.mean.delta, moments.m2.delta),
    )
    return mask_rows(rows, live(factors))
