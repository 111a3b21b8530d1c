"""int8 kernels: one float32 scale per output channel, symmetric, rounded to nearest.

    kernel [d_in, d_out]  ->  q int8[d_in, d_out], scale float32[d_out],   kernel ~ q * scale
    scale_j = max_i |kernel_ij| / 127,   so that no entry is off by more than scale_j / 2

`Linear` (layers.py) computes with either. Only kernels are quantised: embeddings, norms and biases
are few, or small, and keep the dtype of the activations.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


@jax.jit
def quantize_kernel(kernel: Float[Array, "d_in d_out"]) -> dict[str, Array]:
    """{"kernel": int8[d_in, d_out], "scale": float32[d_out]}; an empty channel gets scale 1."""
    kernel = kernel.astype(jnp.float32)
    peak = jnp.max(jnp.abs(kernel), axis=0)
    scale = jnp.where(peak > 0, peak / 127, 1.0)
    return {"kernel": jnp.round(kernel / scale[None]).astype(jnp.int8), "scale": scale}


def quantize(params: PyTree) -> PyTree:
    """The parameters with every float kernel quantised and its scale beside it.

    Pure: `jax.eval_shape(quantize, shapes)` says what a base loaded with dtype "int8" holds.
    """
    if not isinstance(params, Mapping):
        return params
    tree = {name: quantize(child) for name, child in params.items()}
    kernel: Any = params.get("kernel")
    if getattr(kernel, "ndim", 0) == 2 and jnp.issubdtype(kernel.dtype, jnp.floating):
        tree |= quantize_kernel(kernel)
    return tree


def float_kernel(layer: Mapping[str, Array]) -> Float[Array, "d_in d_out"]:
    """The float32 kernel that a layer's parameters stand for, int8 or not."""
    kernel = layer["kernel"].astype(jnp.float32)
    return kernel * layer["scale"][None] if layer["kernel"].dtype == jnp.int8 else kernel
