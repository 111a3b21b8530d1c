"""What encoders that read a whole text at once share: each position attends to all the others.

A family is an attention, a block and a model (`OneStack`); the first two are made of these classes.
"""

from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from mend_jax.models.attention import Attention, attention
from mend_jax.models.layers import take
from mend_jax.models.one_stack import Places


class EncoderAttention(Attention):
    """Attention to all that is no padding; queries are made at `read` only."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "k length d"], places: Places
    ) -> Float[Array, "k queries d"]:
        query, (key, value) = self.queries(take(x, places.read)), self.keys_values(x)
        mask = None if places.mask is None else places.mask[:, None]
        return self.output(attention(query, key, value, mask, scoring=self.scoring), x.shape[-1])


class EncoderBlock(nn.Module):
    """x <- norm(x + attention x), then norm(x + mlp x); the output holds the positions of `read`.

    A family says its `attention`, and how a `norm` and the `mlp` are made.
    """

    config: Any
    dtype: Any

    attention: ClassVar[type[EncoderAttention]]

    def norm(self, name: str) -> nn.Module:
        """A norm of this name."""
        raise NotImplementedError

    def mlp(self) -> nn.Module:
        """The MLP, of the name `mlp`."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, x: Float[Array, "k length d"], places: Places
    ) -> Float[Array, "k queries d"]:
        attended = self.attention(self.config, self.dtype, name="attention")(x, places)
        x = self.norm("attention_norm")(take(x, places.read) + attended)
        return self.norm("mlp_norm")(x + self.mlp()(x))
