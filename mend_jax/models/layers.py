"""Layers that the families share: linear, norms, MLP, rows of tables; and what they are made of."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from mend_jax import products

EMBEDDING_INIT = nn.initializers.normal(0.02)

ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": nn.gelu,  # the approximation by tanh
    "gelu_pytorch_tanh": nn.gelu,
    "relu": nn.relu,
    "silu": nn.silu,
    "tanh": nn.tanh,
}
"""By their names in config.json."""


def embedded(
    table: Float[Array, "vocabulary d"], tokens: Int[Array, "k length"]
) -> Float[Array, "k length d"]:
    """A row of the table for each token.

    Raises:
      ValueError: a token is not in the vocabulary. (Inside jit, where nobody can look, its row is
        NaN, never another token's.)
    """
    if not isinstance(tokens, jax.core.Tracer):
        check_tokens(tokens, len(table))
    return _rows(table, tokens)


@partial(jax.jit, inline=True)
def _rows(
    table: Float[Array, "vocabulary d"], tokens: Int[Array, "k length"]
) -> Float[Array, "k length d"]:
    return jnp.take(table, jnp.where(tokens < 0, len(table), tokens), axis=0)


def check_tokens(tokens: Int[Array | np.ndarray, "*any"], size: int) -> None:
    """Refuses tokens outside a vocabulary of this size.

    Raises:
      ValueError: there are some.
    """
    if not getattr(tokens, "is_fully_addressable", True):
        return  # other processes hold the rest, and each has seen its own
    values = np.asarray(tokens)
    outside = values[(values < 0) | (values >= size)]
    if outside.size:
        raise ValueError(
            f"token {outside.flat[0]} is not in this model's vocabulary, 0 to {size - 1} "
            f"({outside.size} of {values.size} tokens are not): were they made by its tokenizer?"
        )


def check_positions(length: int, most: int | None) -> None:
    """Refuses more positions than a model has (None: it has any number).

    Raises:
      ValueError: so many are asked for.
    """
    if most is not None and length > most:
        raise ValueError(
            f"{length} positions are asked for (padding and tokens to be generated included), "
            f"but this model has {most}: shorten the text, pad it less, or generate less"
        )


def layer_norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm in float32, its variance from the deviations (E[x^2] - E[x]^2 would cancel)."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis, computed in float32, returned in x's dtype.

    Args:
      offset: is added to the scale.
    """

    epsilon: float
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "*any d"]) -> Float[Array, "*any d"]:
        init = nn.initializers.constant(1.0 - self.offset)
        scale = self.param("scale", init, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.epsilon)
        scale = jnp.broadcast_to(scale.astype(jnp.float32) + self.offset, x.shape)
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
        x = inputs.astype(dtype)
        if kernel.dtype == jnp.int8:
            y = products.forward_int8(x, kernel, dtype)
        elif dtype == jnp.bfloat16 and self.precision is None:
            y = products.forward(x, kernel.astype(dtype), dtype)
        else:
            y = jnp.dot(x, kernel.astype(dtype), precision=self.precision)
        if self.has_variable("params", "scale"):
            scale: Array = self.get_variable("params", "scale").astype(dtype)
            y = y * jnp.broadcast_to(scale, y.shape)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            y = y + jnp.broadcast_to(bias.astype(dtype), y.shape)
        return y


class MLP(nn.Module):
    """narrow(act(wide x)); with two matrices that widen it is gated: narrow(act(wide x) * gate x).

    Args:
      names: of the matrices that widen, and last of the one that narrows.
      bias: whether they have one.
    """

    inner: int
    activation: str
    dtype: Any
    names: tuple[str, ...]
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "k length d"]) -> Float[Array, "k length d"]:
        def linear(features: int, name: str) -> Linear:
            return Linear(features, use_bias=self.bias, dtype=self.dtype, name=name)

        *wide, narrow = self.names
        first, *gates = (linear(self.inner, name)(x) for name in wide)
        h = ACTIVATIONS[self.activation](first)
        for gate in gates:
            h = h * gate
        return linear(x.shape[-1], narrow)(h)


def capped(x: Float[Array, "*any"], cap: float | None) -> Float[Array, "*any"]:
    """cap tanh(x / cap), which lies between -cap and cap; without a cap, x."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def logits_against(
    x: Float[Array, "k answers d"],
    table: Float[Array, "vocabulary d"],
    bias: Float[Array, "vocabulary"] | None = None,
) -> Float[Array, "k answers vocabulary"]:
    """Logits in float32."""
    table = table.astype(x.dtype)
    if x.dtype == jnp.bfloat16:
        y = products.backward(x, table, jnp.float32)
    else:
        y = jnp.einsum("kad,vd->kav", x, table, preferred_element_type=jnp.float32)
    return y if bias is None else y + jnp.broadcast_to(bias.astype(jnp.float32), y.shape)


class Head(nn.Module):
    """Logits in float32 against the embedding or a table of its own, after a norm.

    Args:
      norm: makes it (None: there is none). tied: to the embedding. bias: whether logits have one.
      spread: standard deviation of its own table at initialisation.
    """

    norm: Callable[[], nn.Module] | None = None
    tied: bool = True
    bias: bool = False
    spread: float = 0.02

    @nn.compact
    def __call__(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        x, table = x if self.norm is None else self.norm()(x), embedding
        if not self.tied:
            init = nn.initializers.normal(self.spread)
            table = self.param("embedding", init, embedding.shape)
        bias = None
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, embedding.shape[:1])
        return logits_against(x, table, bias)


def take(
    x: Shaped[Array, "k length *d"], index: Int[Array, "k n"] | None
) -> Shaped[Array, "k queries *d"]:
    """x[i, index[i]] along the second axis; without an index, all of x."""
    if index is None:
        return x
    return jnp.take_along_axis(x, index.reshape(*index.shape, *(1,) * (x.ndim - 2)), axis=1)
