"""Layers that several families share: linear, rotary positions, attention, norms, a cache."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": nn.gelu,  # the approximation by tanh
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": nn.tanh,
}
"""By their names in config.json."""


def checked_activation(name: str, family: str) -> str:
    """The name, if it is one of `ACTIVATIONS`.

    Raises:
      ValueError: it is not.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{family} with the activation {name!r} is not implemented ({known} are)")
    return name


def layer_norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm in float32, its variance from the deviations (E[x^2] - E[x]^2 would cancel)."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def logits_against(
    x: Float[Array, "k answers d"], table: Float[Array, "vocabulary d"]
) -> Float[Array, "k answers vocabulary"]:
    """Logits in float32."""
    return jnp.einsum("kad,vd->kav", x, table.astype(x.dtype), preferred_element_type=jnp.float32)


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis, computed in float32, returned in x's dtype."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "*any d"]) -> Float[Array, "*any d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.epsilon)
        return (x32 * scale).astype(x.dtype)


class Linear(nn.Dense):
    """x W + b: Linen's Dense, whose kernel may also be int8 with one float32 scale per output.

    Which of the two it is, the parameters say: an int8 kernel has a `scale` beside it. Edits are
    made to the kernel's float values, x (W scale) + b, and stay float32 beside it.
    """

    @nn.compact
    def __call__(self, inputs: Float[Array, "*any d_in"]) -> Float[Array, "*any d_out"]:
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        dtype = self.dtype or inputs.dtype
        y = jnp.dot(inputs.astype(dtype), kernel.astype(dtype), precision=self.precision)
        if self.has_variable("params", "scale"):
            y = y * self.get_variable("params", "scale").astype(dtype)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            y = y + bias.astype(dtype)
        return y


def rotary(
    x: Float[Array, "k length heads d"],
    positions: Int[Array, "k length"],
    frequencies: Float[Array, "half_d"],
) -> Float[Array, "k length heads d"]:
    """Rotary position embedding, halves convention: (a, b) -> (a cos - b sin, b cos + a sin)."""
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def attention(
    query: Float[Array, "k queries heads d"],
    key: Float[Array, "k keys kv_heads d"],
    value: Float[Array, "k keys kv_heads d"],
    mask: Bool[Array, "k #queries keys"] | None = None,
    bias: Float[Array, "#k #heads #queries keys"] | None = None,
    scale: float | None = None,
) -> Float[Array, "k queries heads_d"]:
    """Softmax attention with grouped heads, softmax in float32.

    Args:
      mask: which keys a query sees. bias: added to the scores (heads not grouped).
      scale: 1/sqrt(d) unless given.
    """
    k, queries, heads, d = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(k, queries, kv_heads, heads // kv_heads, d)
    scores = jnp.einsum("kqhgd,kshd->khgqs", grouped, key).astype(jnp.float32)
    scores = scores * (d**-0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias[:, :, None]
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("khgqs,kshd->kqhgd", weights, value).reshape(k, queries, heads * d)


def everything_before(
    asking: Int[Array, "k queries"], keys: Int[Array, "keys"]
) -> Bool[Array, "k queries keys"]:
    """The causal mask: a position sees itself and those before it."""
    return keys <= asking[:, :, None]


def take(x: Float[Array, "k length *d"], index: Int[Array, "k n"]) -> Float[Array, "k n *d"]:
    """x[i, index[i]] along the second axis."""
    return jnp.take_along_axis(x, index.reshape(*index.shape, *(1,) * (x.ndim - 2)), axis=1)


class Cache(nn.Module):
    """Keys and values written at their own positions, so that right-padded prompts may differ.

    A padded position holds rubbish until decoding overwrites it; the causal mask hides it until
    then, since it lies in the future of every query.
    """

    length: int

    @nn.compact
    def __call__(self, new: Float[Array, "k n h d"], positions: Int[Array, "k n"]) -> Array:
        shape = (new.shape[0], self.length, *new.shape[2:])
        store = self.variable("cache", "values", jnp.zeros, shape, new.dtype)
        rows = jnp.arange(new.shape[0])[:, None]
        store.value = store.value.at[rows, positions].set(new)
        return store.value
