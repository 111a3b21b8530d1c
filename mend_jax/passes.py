"""How often a site is called in one pass of a loss that maps over examples itself.

`jax.vmap` inside of a loss hides its axis from a tap: what came back would be the sum of all u and
the sum of all delta, not the sum of their products. So the sites are first marked in the loss's
jaxpr, where a mark counts the examples that it is mapped over, and shows the loop that it stands
in; and what comes back is the rows of all passes, side by side.
"""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Jaxpr, Primitive, jaxprs_in_params
from jax.interpreters import ad, batching
from jaxtyping import Array, Float

from mend_jax.factors import Factors

LOOPS = frozenset(("scan", "while", "shard_map", "pmap", "xla_pmap"))
"""Primitives that run what they hold several times, where no tap can tell the passes apart."""

_mark = Primitive("site")
_mark.def_abstract_eval(lambda y, *, name, passes: y)
ad.deflinear2(_mark, lambda cotangent, y, **_: [cotangent])


def _batched(args: Any, dims: Any, *, name: str, passes: int) -> Any:
    (y,), (axis,) = args, dims
    return _mark.bind(y, name=name, passes=passes * y.shape[axis]), axis


batching.primitive_batchers[_mark] = _batched


def mark(y: Array, name: str) -> Array:
    """y, the output of the site; only to be traced."""
    return _mark.bind(y, name=name, passes=1)


def marks(jaxpr: Jaxpr, loop: str = "") -> Iterator[tuple[str, int, str]]:
    """(site, examples that it is mapped over, the loop that it stands in or "") of every mark."""
    for equation in jaxpr.eqns:
        if equation.primitive is _mark:
            yield equation.params["name"], equation.params["passes"], loop
        inside = equation.primitive.name if equation.primitive.name in LOOPS else loop
        for inner in jaxprs_in_params(equation.params):
            yield from marks(inner, inside)


def all_passes(
    u: Float[Array, "some d_in"], delta: Float[Array, "some d_out"], rows: int
) -> Factors:
    """The rows of every pass, in the cotangent of a slot for so many; of one pass, those there are.

    Where a tap is mapped, its cotangent is asked for once for every example: the answer is the same
    for all of them, and holds them all, so that there is nothing to be summed.
    """
    if u.shape[0] == rows:
        return Factors(u, delta)

    @custom_vmap
    def placed(u: Array, delta: Array) -> tuple[Array, Array]:
        fill = ((0, rows - u.shape[0]), (0, 0))
        return jnp.pad(u, fill), jnp.pad(delta, fill)

    @placed.def_vmap
    def _(n: int, batched: Any, u: Array, delta: Array) -> Any:
        def flat(x: Array, mapped: bool) -> Array:
            every = x if mapped else jnp.broadcast_to(x, (n, *x.shape))
            return every.reshape(-1, x.shape[-1])

        found = all_passes(flat(u, batched[0]), flat(delta, batched[1]), rows)
        return tuple(found), (False, False)

    return Factors(*placed(u, delta))
