"""What encoder-decoders share: embed -> encoder blocks -> decoder blocks -> head, by stages.

The encoder and the decoder are a stack each (`stack.py`).
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mend_jax.models.stack import Stack
from mend_jax.models.stages import Inputs, tell_of_all


class Sizes(NamedTuple):
    """Of a model; encoder and decoder: their blocks."""

    vocabulary: int
    width: int
    encoder: int
    decoder: int


class EncoderDecoder(nn.Module):
    """The model, or the stages of it from `start` up to `stop`.

    A family says its `sizes`, its `stack_type`, and what `read_out` does.

    Args:
      config: the family's dimensions.
      cache_length: with more than 0, the decoder keeps keys and values in the collection `cache`.
      keep: numbers of the stages before which the states are kept, none of them within the decoder;
        otherwise as in `OneStack`, and so is `alike`.
    """

    config: Any
    dtype: Any = jnp.float32
    start: int = 0
    stop: int | None = None
    cache_length: int = 0
    keep: tuple[int, ...] = ()
    alike: bool = False

    kind = "seq2seq"
    spread: ClassVar[float] = 0.02  # standard deviation of the embedding at initialisation
    stack_type: ClassVar[type[Stack]]

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
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
        inputs = jax.tree.map(jnp.asarray, inputs)  # outside of jit they may be numpy's
        sizes, start, decoding = self.sizes, self.start, self.decoding
        head = decoding + sizes.decoder
        stop = head + 1 if self.stop is None else self.stop
        init = nn.initializers.normal(self.spread)
        embedding = self.param("embedding", init, (sizes.vocabulary, sizes.width))
        c, dtype, target = self.config, self.dtype, cast(Array, inputs.target)
        stack = partial(self.stack_type, c, dtype, alike=self.alike)
        if inputs.seen is not None:
            tell_of_all(inputs.seen)
        if start < decoding:
            first, last = max(start - 1, 0), min(stop, decoding) - 1
            keep = tuple(stage - 1 for stage in self.keep) if inputs.seen is None else ()
            encoder = stack(False, first, last, keep=keep, name="encoder")
            x, seen = encoder(inputs.x, inputs, embedding)
            inputs = inputs._replace(x=x, seen=inputs.seen if seen is None else seen)
        first, last = max(start - decoding, 0), min(stop, head) - decoding
        if first < last:
            cache = self.cache_length
            decoder = stack(True, first, last, cache, name="decoder")
            target, _ = decoder(target, inputs, embedding)
            inputs = inputs._replace(target=target)
        return inputs if stop <= head else self.read_out(target, embedding)
