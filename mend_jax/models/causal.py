"""What all causal language models share: embed -> blocks -> head, run from one stage to another."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models.stages import Inputs

EMBEDDING_INIT = nn.initializers.normal(0.02)


class Sizes(NamedTuple):
    """Of a model. positions: None if there may be any number of them."""

    vocabulary: int
    width: int
    blocks: int
    positions: int | None = None


class CausalModel(nn.Module):
    """The model, or the stages of it from `start` up to `stop`.

    A family says its `sizes`, and what `embed`, `block` and `read_out` do. They run inside
    `__call__`, where they may make parameters and submodules.

    Args:
      config: the family's dimensions.
      cache_length: with more than 0, keys and values are kept in the collection `cache`.
    """

    config: Any
    dtype: Any = jnp.float32
    start: int = 0
    stop: int | None = None
    cache_length: int = 0

    kind = "causal"
    block_name = "h"

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        raise NotImplementedError

    def embed(
        self,
        embedding: Float[Array, "vocabulary d"],
        tokens: Int[Array, "k length"],
        positions: Int[Array, "k length"],
    ) -> Float[Array, "k length d"]:
        """The states before the first block: a row of the embedding for each token."""
        del positions
        return jnp.take(embedding, tokens, axis=0)

    def block(self, number: int, name: str) -> nn.Module:
        """block(x [k, length, d], positions, read) -> [k, length or read, d]."""
        raise NotImplementedError

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """The logits, by a submodule of the name `head`."""
        raise NotImplementedError

    @property
    def stages(self) -> tuple[str, ...]:
        """embed, the blocks, head."""
        blocks = (f"{self.block_name}_{i}" for i in range(self.sizes.blocks))
        return ("embed", *blocks, "head")

    def example_inputs(self) -> Inputs:
        """One token."""
        return Inputs(jnp.zeros((1, 1), jnp.int32))

    @nn.compact
    def __call__(self, inputs: Inputs) -> Any:
        """Logits, or the carry after `stop`.

        Raises:
          ValueError: the text, or the cache it is to be continued in, is longer than the model's
            positions.
        """
        sizes = self.sizes
        last = sizes.blocks  # index of the last block among the stages
        stop = last + 2 if self.stop is None else self.stop
        x, read = inputs.x, inputs.read
        positions = self._positions(inputs)
        shape = (sizes.vocabulary, sizes.width)
        embedding = self.param("embedding", EMBEDDING_INIT, shape)
        for stage in range(self.start, stop):
            if stage == 0:
                x = self.embed(embedding, x, positions).astype(self.dtype)
            elif stage <= last:
                block = self.block(stage - 1, self.stages[stage])
                x = block(x, positions, read if stage == last else None)
            else:
                x = self.read_out(x, embedding)
        return x if stop == last + 2 else inputs._replace(x=x)

    def _positions(self, inputs: Inputs) -> Int[Array, "k length"]:
        """0, 1, 2, ... unless they are given."""
        length, most = max(inputs.x.shape[1], self.cache_length), self.sizes.positions
        if self.start == 0 and most is not None and length > most:
            raise ValueError(
                f"{length} positions are asked for (padding and tokens to be generated included), "
                f"but this model has {most}: shorten the text, pad it less, or generate less"
            )
        if inputs.positions is not None:
            return inputs.positions
        return jnp.broadcast_to(jnp.arange(inputs.x.shape[1]), inputs.x.shape[:2])
