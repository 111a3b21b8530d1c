"""What all causal language models share: each position attends to those before it.

A family is an attention, a block and a model made of the three classes below. What they do is what
most families do; where a family differs, it says so.
"""

from collections.abc import Hashable
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mend_jax.models.attention import Attention, attention, everything_before
from mend_jax.models.layers import take
from mend_jax.models.one_stack import OneStack, Places
from mend_jax.models.stages import Inputs, Seen, Watch


@jax.jit
def places_without_padding(
    mask: Bool[Array, "k length"],
) -> tuple[Int[Array, "k length"], Bool[Array, "k length"]]:
    """(positions that count the tokens that are no padding, which tokens may be seen).

    What is to the right of a text may be seen, since nothing of the text looks there, and its
    positions count on: padding to the right is as if there were no mask. (Jitted for those who call
    a trunk from the host: one program, not one for each operation.)
    """
    index = jnp.arange(mask.shape[1])[None]
    last = jnp.max(jnp.where(mask, index, -1), axis=1, keepdims=True)
    after = jnp.maximum(index - jnp.maximum(last, 0), 0)
    return jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0) + after, mask | (index > last)


class CausalAttention(Attention):
    """Attention to the past; queries are made at `read` only.

    Args:
      layer: as of the block that it is in.
    """

    layer: Any = None

    @property
    def window(self) -> int | None:
        """How many keys a position sees, its own included (None: all of the past)."""
        return None

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
        query, key, value = self.split(x, places.read)
        query, key = self.prepare(query, key, take(positions, places.read), places)
        key, value = self.remember(key, value, positions)
        if places.mask is not None:  # then who comes before whom is not for the positions to say
            where = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        asking = take(where, places.read)
        if self.cache_length:
            where = jnp.arange(self.cache_length)[None]
        mask = everything_before(asking, where)
        if self.window is not None:
            mask &= where[:, None, :] > asking[:, :, None] - self.window
        if places.mask is not None:
            mask &= places.mask[:, None, :]
        return self.output(attention(query, key, value, mask, scoring=self.scoring), x.shape[-1])


class Names(NamedTuple):
    """Of the parts of a block: its attention, and the norms before and after attention and MLP,
    None where there is none."""

    attention: str = "attn"
    before_attention: str | None = "ln_1"
    after_attention: str | None = None
    before_mlp: str | None = "ln_2"
    after_mlp: str | None = None


class CausalBlock(nn.Module):
    """x <- x + r attention(norm x), then x + r mlp(norm x), r = 1; at the positions of `read`.

    A family says its `attention`, and how a `norm` and the `mlp` are made; and where it has other
    norms, by other `names`, or another `residual`, r.

    Args:
      layer: what this layer is that others of the model are not, as the family says it. Blocks
        differ in it, and in their weights, alone.
    """

    config: Any
    dtype: Any
    cache_length: int = 0
    layer: Any = None

    attention: ClassVar[type[CausalAttention]]

    @property
    def names(self) -> Names:
        """A norm before each of the two."""
        return Names()

    @property
    def residual(self) -> float:
        """What outputs are multiplied by before they are added to the states."""
        return 1.0

    def norm(self, name: str) -> nn.Module:
        """A norm of this name."""
        raise NotImplementedError

    def normed(self, x: Float[Array, "k length d"], name: str | None) -> Float[Array, "k length d"]:
        """By the norm of this name, if it has one."""
        return x if name is None else self.norm(name)(x)

    def mlp(self) -> nn.Module:
        """The MLP, of the name `mlp`."""
        raise NotImplementedError

    def attend(
        self, x: Float[Array, "k length d"], places: Places
    ) -> Float[Array, "k queries d"]:
        """The attention of x, which is normed already."""
        fields = (self.config, self.dtype, self.cache_length, self.layer)
        return self.attention(*fields, name=self.names.attention)(x, places)

    @nn.compact
    def __call__(
        self, x: Float[Array, "k length d"], places: Places
    ) -> Float[Array, "k queries d"]:
        names, much = self.names, self.residual
        attended = self.attend(self.normed(x, names.before_attention), places)
        x = take(x, places.read) + much * self.normed(attended, names.after_attention)
        out = self.mlp()(self.normed(x, names.before_mlp))
        return x + much * self.normed(out, names.after_mlp)


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

    def places(self, inputs: Inputs) -> Places:
        """With a mask, only the tokens that are no padding are counted, and seen.

        Raises:
          ValueError: a mask and a cache, which holds texts that are padded to the right.
        """
        places = super().places(inputs)
        if inputs.mask is None:
            return places
        if self.cache_length:
            raise ValueError(
                "a cache takes no mask: pad to the right, and give the lengths (see `generate`)"
            )
        positions, seen = places_without_padding(inputs.mask)
        if inputs.positions is not None:
            positions = inputs.positions
        return places._replace(positions=positions, mask=seen)

    def longest(self, inputs: Inputs) -> int:
        """The text, or the cache that it is to be continued in."""
        return max(inputs.x.shape[1], self.cache_length)

    def watch(self, seen: Seen, places: Places) -> None:
        """With a cache, of these tokens at their positions in it."""
        if not self.cache_length:
            return super().watch(seen, places)
        Watch(self.cache_length, name="watch")(seen, places.positions, places.read)

    def layer(self, number: int) -> Hashable:
        """What the layer of this number is that others are not."""
        del number
        return None

    def block(self, number: int, name: str) -> CausalBlock:
        """All are of one type."""
        fields = (self.config, self.dtype, self.cache_length, self.layer(number))
        return self.block_type(*fields, name=name)
