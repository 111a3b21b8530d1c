"""What GPT-2, GPT-Neo and GPT-J share: their layers and their positions.

All three have LayerNorm with a bias, an MLP of two matrices, and attention of every position to
those before it.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models.causal import EMBEDDING_INIT, CausalModel
from mend_jax.models.layers import (
    ACTIVATIONS,
    Cache,
    Linear,
    attention,
    checked_activation,
    everything_before,
    layer_norm,
    logits_against,
    take,
)


def checked(config: Mapping[str, Any], wanted: Mapping[str, Any], family: str) -> str:
    """The activation's name, once config.json asks for nothing that is not implemented.

    Args:
      wanted: the only value that is implemented of each of these keys, where they are given.

    Raises:
      ValueError: the activation, or one of these keys.
    """
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise ValueError(
                f"{family} with {key} {config[key]!r} is not implemented (only {value!r} is)"
            )
    return checked_activation(config.get("activation_function", "gelu_new"), family)


def split_heads(x: Float[Array, "k length d"], heads: int) -> Float[Array, "k length heads hd"]:
    """The features of each head apart."""
    return x.reshape(*x.shape[:2], heads, -1)


def attend(
    query: Float[Array, "k queries heads d"],
    key: Float[Array, "k length heads d"],
    value: Float[Array, "k length heads d"],
    positions: Int[Array, "k length"],
    read: Int[Array, "k queries"] | None,
    cache_length: int,
    window: int | None = None,
    scale: float | None = None,
) -> Float[Array, "k queries heads_d"]:
    """Attention to the past, within a compact method (the cache becomes a child of that module).

    Args:
      read: where the queries stand in `positions`, if not everywhere. window: so many keys are
      seen, a position's own included. scale: of the scores, 1/sqrt(d) unless given.
    """
    asking = positions if read is None else take(positions, read)
    keys = jnp.arange(cache_length or key.shape[1])
    if cache_length:
        key = Cache(cache_length, name="key_cache")(key, positions)
        value = Cache(cache_length, name="value_cache")(value, positions)
    mask = everything_before(asking, keys)
    if window is not None:
        mask &= keys > asking[:, :, None] - window
    return attention(query, key, value, mask, scale=scale)


class MLP(nn.Module):
    """c_proj(act(c_fc x)).

    Args:
      names: of the two matrices.
    """

    inner: int
    activation: str
    dtype: Any
    names: tuple[str, str] = ("c_fc", "c_proj")

    @nn.compact
    def __call__(self, x: Float[Array, "k length d"]) -> Float[Array, "k length d"]:
        widen, narrow = self.names
        h = ACTIVATIONS[self.activation](Linear(self.inner, dtype=self.dtype, name=widen)(x))
        return Linear(x.shape[-1], dtype=self.dtype, name=narrow)(h)


class TiedHead(nn.Module):
    """The last norm, then logits against the embedding."""

    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        return logits_against(layer_norm(self.epsilon, self.dtype, "ln_f")(x), embedding)


class TiedGPT(CausalModel):
    """With learned positions, and a head tied to the embedding; a family adds its blocks."""

    def embed(
        self,
        embedding: Float[Array, "vocabulary d"],
        tokens: Int[Array, "k length"],
        positions: Int[Array, "k length"],
    ) -> Float[Array, "k length d"]:
        """Token and position, added."""
        shape = (self.sizes.positions, self.sizes.width)
        table = self.param("position_embedding", EMBEDDING_INIT, shape)
        return super().embed(embedding, tokens, positions) + jnp.take(table, positions, axis=0)

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """The last norm, then logits against the embedding."""
        epsilon = self.config.layer_norm_epsilon
        return TiedHead(epsilon, self.dtype, name="head")(x, embedding)
