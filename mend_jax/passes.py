"""The tap at a site, and the rows that come back from it.

It leaves the layer's output as it is; the cotangent of its slot is the factors. But `jax.vmap`
inside of a loss hides its axis from a tap: what came back would be the sum of all u and the sum of
all delta, not the sum of their products. So the sites are first marked in the loss's jaxpr, where a
mark counts the examples that it is mapped over, and shows the loop that it stands in; and what
comes back is the rows of all passes, side by side.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def tap(y: Array, x: Array | np.ndarray, slot: Factors, rows: int) -> Array:
    """y; the cotangent of the slot, which has so many rows, is (u, delta)."""
    del x, slot, rows
    return y


def _tap_forward(
    y: Array, x: Array | np.ndarray, slot: Factors, rows: int
) -> tuple[Array, Array | np.ndarray]:
    del slot, rows
    return y, x


def _tap_backward(rows: int, x: Array | np.ndarray, g: Array) -> tuple[Array, None, Factors]:
    u = jnp.asarray(x).reshape(-1, x.shape[-1]).astype(jnp.float32)
    delta = g.reshape(-1, g.shape[-1]).astype(jnp.float32)
    return g, None, all_passes(u, delta, rows)


tap.defvjp(_tap_forward, _tap_backward)
