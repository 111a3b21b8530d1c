"""What encoder-decoders share: embed -> encoder blocks -> decoder blocks -> head, by stages."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mend_jax.models.stages import Inputs


class Sizes(NamedTuple):
    """Of a model; encoder and decoder: their blocks."""

    vocabulary: int
    width: int
    encoder: int
    decoder: int


class EncoderDecoder(nn.Module):
    """The model, or the stages of it from `start` up to `stop`.

    A family says its `sizes`, and what `encode`, `decode` and `read_out` do. They run inside
    `__call__`, where they may make parameters and submodules.

    Args:
      config: the family's dimensions.
      cache_length: with more than 0, the decoder keeps keys and values in the collection `cache`.
    """

    config: Any
    dtype: Any = jnp.float32
    start: int = 0
    stop: int | None = None
    cache_length: int = 0

    kind = "seq2seq"
    spread = 0.02  # standard deviation of the embedding at initialisation

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        raise NotImplementedError

    def encode(
        self, inputs: Inputs, embedding: Float[Array, "vocabulary d"], first: int, last: int
    ) -> Float[Array, "k length d"]:
        """`inputs.x` after the blocks `first` up to `last`; tokens, if `start` is 0, embedded."""
        raise NotImplementedError

    def decode(
        self, inputs: Inputs, embedding: Float[Array, "vocabulary d"], first: int, last: int
    ) -> Float[Array, "k answers d"]:
        """`inputs.target` likewise, tokens if `start` is not after `decoding`; `inputs.x` is the
        encoder's states."""
        raise NotImplementedError

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """The logits, by a submodule of the name `head`."""
        raise NotImplementedError

    @property
    def stages(self) -> tuple[str, ...]:
        """embed, encoder/block_0, ..., decoder/block_0, ..., head."""
        encoder = (f"encoder/block_{i}" for i in range(self.sizes.encoder))
        decoder = (f"decoder/block_{i}" for i in range(self.sizes.decoder))
        return ("embed", *encoder, *decoder, "head")

    @property
    def decoding(self) -> int:
        """The first stage of the decoder."""
        return 1 + self.sizes.encoder

    def example_inputs(self) -> Inputs:
        """One token in, one out."""
        token = jnp.zeros((1, 1), jnp.int32)
        return Inputs(token, mask=jnp.ones((1, 1), bool), target=token)

    @nn.compact
    def __call__(self, inputs: Inputs) -> Any:
        """Logits, or the carry after `stop`.

        Raises:
          ValueError: more tokens than the model has positions.
        """
        sizes, start, decoding = self.sizes, self.start, self.decoding
        head = decoding + sizes.decoder
        stop = head + 1 if self.stop is None else self.stop
        init = nn.initializers.normal(self.spread)
        embedding = self.param("embedding", init, (sizes.vocabulary, sizes.width))
        if start < decoding:
            first, last = max(start - 1, 0), min(stop, decoding) - 1
            inputs = inputs._replace(x=self.encode(inputs, embedding, first, last))
        first, last = max(start - decoding, 0), min(stop, head) - decoding
        if first < last:
            inputs = inputs._replace(target=self.decode(inputs, embedding, first, last))
        if stop <= head:
            return inputs
        answers: Any = inputs.target
        return self.read_out(answers, embedding)
