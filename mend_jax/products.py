"""Products with a kernel of bfloat16 or int8, without wide copies of it.

XLA's CPU compiler takes a product of bfloat16 whose result is bfloat16 through float32 copies of
both factors, of twice a kernel's memory; so does one with a factor of float32. The product whose
result is float32 reads bfloat16 as it is. Here the former is rounded after such a product, and
the latter made of two, of what bfloat16 holds of that factor and of the rest.

The derivatives of a product are products again, with two of its three arrays exchanged; so there
are three of them, each made of the other two's. GPUs get the products that `jnp.dot` and its own
derivatives would give them.

An int8 kernel is widened for each product anew. A compiler that may widen it once, for a GPU, keeps
it wide from an edit's first pass to its last.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, BFloat16, Float, Int8

PROCESSOR = Path("/proc/cpuinfo")
"""Where Linux says what the processor can do."""


@lru_cache
def narrow_dtype() -> Any:
    """bfloat16 where the device multiplies it, float32 on a CPU that would only imitate it."""
    if jax.default_backend() != "cpu" or (PROCESSOR.exists() and "bf16" in PROCESSOR.read_text()):
        return jnp.bfloat16
    return jnp.float32


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def forward(
    x: Float[Array, "*any d_in"], kernel: BFloat16[Array, "d_in d_out"], dtype: Any
) -> Float[Array, "*any d_out"]:
    """x @ kernel, of this dtype. x: bfloat16 or float32."""
    return _product(x, kernel, ([x.ndim - 1], [0]), dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def backward(
    y: Float[Array, "*any d_out"], kernel: BFloat16[Array, "d_in d_out"], dtype: Any
) -> Float[Array, "*any d_in"]:
    """y @ kernel^T, of this dtype: what reaches x. y: bfloat16 or float32."""
    return _product(y, kernel, ([y.ndim - 1], [1]), dtype)


@jax.custom_vjp
def outer(
    x: Float[Array, "*any d_in"], y: Float[Array, "*any d_out"]
) -> BFloat16[Array, "d_in d_out"]:
    """x^T y, summed over all rows: what reaches the kernel. x, y: bfloat16 or float32."""
    rows = list(range(x.ndim - 1))
    return _product(x, y, (rows, rows), jnp.bfloat16)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def forward_int8(
    x: Float[Array, "*any d_in"], kernel: Int8[Array, "d_in d_out"], dtype: Any
) -> Float[Array, "*any d_out"]:
    """x @ kernel, of this dtype. x: bfloat16 or float32."""
    return _widened(x, kernel, dtype, forward)


def _widened(
    x: Array, kernel: Int8[Array, "d_in d_out"], dtype: Any, product: Callable[..., Array]
) -> Array:
    kernel, _ = jax.lax.optimization_barrier((kernel, x))
    wide = kernel.astype(dtype)
    if dtype == jnp.bfloat16:
        return product(x, wide, dtype)
    return jnp.dot(x, wide if product is forward else wide.T)


def _back_int8(dtype: Any, kernel: Int8[Array, "d_in d_out"], y: Array) -> tuple[Array, Any]:
    nothing = np.zeros(kernel.shape, jax.dtypes.float0)
    return _widened(y, kernel, dtype, backward), nothing


Axes = tuple[list[int], list[int]]


def _product(a: Array, b: Array, over: Axes, dtype: Any) -> Array:
    """The dot product over these axes of each."""

    def on_cpu(a: Array, b: Array) -> Array:
        whole = [_dot(x, y, over, jnp.float32) for x in _parts(a) for y in _parts(b)]
        return sum(whole[1:], whole[0]).astype(dtype)

    def elsewhere(a: Array, b: Array) -> Array:
        return _dot(a, b, over, dtype)

    found: Array = jax.lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere)
    return found


def _dot(a: Array, b: Array, over: Axes, dtype: Any) -> Array:
    """Summed in float32, unless all are of one dtype and the compiler knows better."""
    summed = dtype if a.dtype == b.dtype == dtype else jnp.float32
    return jax.lax.dot_general(a, b, (over, ([], [])), preferred_element_type=summed).astype(dtype)


def _parts(a: Array) -> tuple[Array, ...]:
    """Arrays of bfloat16 whose sum is a, to 2^-16 of its size."""
    high = a.astype(jnp.bfloat16)
    if a.dtype == high.dtype:
        return (high,)
    return high, (a - high.astype(a.dtype)).astype(jnp.bfloat16)


forward.defvjp(
    lambda x, kernel, dtype: (forward(x, kernel, dtype), (x, kernel)),
    lambda _, kept, y: (backward(y, kept[1], kept[0].dtype), outer(kept[0], y)),
)
forward_int8.defvjp(
    lambda x, kernel, dtype: (forward_int8(x, kernel, dtype), kernel), _back_int8
)
backward.defvjp(
    lambda y, kernel, dtype: (backward(y, kernel, dtype), (y, kernel)),
    lambda _, kept, x: (forward(x, kept[1], kept[0].dtype), outer(x, kept[0])),
)
outer.defvjp(
    lambda x, y: (outer(x, y), (x, y)),
    lambda kept, h: (backward(kept[1], h, kept[0].dtype), forward(kept[0], h, kept[1].dtype)),
)
