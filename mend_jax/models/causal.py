"""What all causal language models share: each position attends to those before it.

A family is an attention, a block and a model made of the three classes below. What they do is what
most families do; where a family differs, it says so.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models.attention import Attention, attention, everything_before
from mend_jax.models.layers import take
from mend_jax.models.one_stack import OneStack, Places
from mend_jax.models.stages import Inputs


class CausalAttention(Attention):
    """Attention to the past; queries are made at `read` only.

    Args:
      window: so many keys are seen, a position's own included (None: all of the past).
    """

    window: int | None = None

    def split(
        self, x: Float[Array, "k length d"], read: Int[Array, "k answers"] | None
    ) -> tuple[Array, Array, Array]:
        """Queries at `read`, keys and values: [k, length, heads, width] each."""
        return self.queries(take(x, read)), *self.keys_values(x)

    def prepare(
        self, query: Array, key: Array, asking: Int[Array, "k queries"], places: Places
    ) -> tuple[Array, Array]:
        """Queries, which stand at the positions `asking`, and keys, as they are multiplied."""
        del asking, places
        return query, key

    @nn.compact
    def __call__(
        self, x: Float[Array, "k length d"], places: Places
    ) -> Float[Array, "k queries d"]:
        positions = where = places.positions
        asking = take(positions, places.read)
        query, key, value = self.split(x, places.read)
        query, key = self.prepare(query, key, asking, places)
        key, value = self.remember(key, value, positions)
        if self.cache_length:
            where = jnp.arange(self.cache_length)[None]
        mask = everything_before(asking, where)
        if self.window is not None:
            mask &= where[:, None, :] > asking[:, :, None] - self.window
        return self.output(attention(query, key, value, mask, scale=self.scale), x.shape[-1])


class CausalBlock(nn.Module):
    """x <- x + attention(norm x), then x + mlp(norm x); the output holds the positions of `read`.

    A family says its `attention`, and how a `norm` and the `mlp` are made.
    """

    config: Any
    dtype: Any
    cache_length: int = 0
    window: int | None = None

    attention: ClassVar[type[CausalAttention]]
    names: ClassVar[tuple[str, str, str]] = ("ln_1", "attn", "ln_2")
    """Of the norm before the attention, the attention, and the norm before the MLP."""

    def norm(self, name: str) -> nn.Module:
        """A norm of this name."""
        raise NotImplementedError

    def mlp(self) -> nn.Module:
        """The MLP, of the name `mlp`."""
        raise NotImplementedError

    def attend(
        self, x: Float[Array, "k length d"], places: Places
    ) -> Float[Array, "k queries d"]:
        """The attention of x, which is normed already."""
        fields = (self.config, self.dtype, self.cache_length, self.window)
        return self.attention(*fields, name=self.names[1])(x, places)

    @nn.compact
    def __call__(
        self, x: Float[Array, "k length d"], places: Places
    ) -> Float[Array, "k queries d"]:
        first, _, second = self.names
        x = take(x, places.read) + self.attend(self.norm(first)(x), places)
        return x + self.mlp()(self.norm(second)(x))


class CausalModel(OneStack):
    """The model, or the stages of it from `start` up to `stop`.

    A family says its `sizes`, its blocks, and what `read_out` does.

    Args:
      config: the family's dimensions.
      cache_length: with more than 0, keys and values are kept in the collection `cache`.
    """

    cache_length: int = 0

    kind = "causal"
    block_name = "h"
    block_type: ClassVar[type[CausalBlock]]

    def longest(self, inputs: Inputs) -> int:
        """The text, or the cache that it is to be continued in."""
        return max(inputs.x.shape[1], self.cache_length)

    def window(self, number: int) -> int | None:
        """How many keys a position of this block sees (None: all of the past)."""
        del number
        return None

    def block(self, number: int, name: str) -> CausalBlock:
        """All are alike but for the window."""
        fields = (self.config, self.dtype, self.cache_length, self.window(number))
        return self.block_type(*fields, name=name)
