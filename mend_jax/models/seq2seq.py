"""What encoder-decoders share: embed -> encoder blocks -> decoder blocks -> head, by stages.

A family is an attention, a block, a stack (the encoder and the decoder are two of them) and a model
made of the classes below.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mend_jax.models.alike import run_block
from mend_jax.models.attention import Attention, attention, everything_before
from mend_jax.models.layers import embedded
from mend_jax.models.stages import Inputs, Seen, tell_of_all


class Sizes(NamedTuple):
    """Of a model; encoder and decoder: their blocks."""

    vocabulary: int
    width: int
    encoder: int
    decoder: int


class Sight(NamedTuple):
    """Where the tokens of a block stand, and what they attend to.

    mask, bias: of their attention to each other (with a cache: to all that are kept).
    states, states_mask: the encoder's, which a decoder attends to as well.
    """

    positions: Int[Array, "k length"]
    mask: Bool[Array, "k #length keys"] | None
    bias: Float[Array, "k heads length keys"] | None
    states: Float[Array, "k source d"] | None
    states_mask: Bool[Array, "k 1 source"] | None


@jax.custom_jvp
def not_before(x: Array, states: Array) -> Array:
    """The states, once x is there. A GPU's compiler would else make one product of what all blocks
    do with them, for which it copies the kernels of all blocks side by side."""
    return jax.lax.optimization_barrier((x, states))[1]


@not_before.defjvp
def _not_before_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    return not_before(*primals), tangents[1]


class StackAttention(Attention):
    """Attention of a block's tokens to each other, or across, to the encoder's states.

    Args:
      causal: whether this is the decoder's.
    """

    causal: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "k length d"], sight: Sight, across: bool
    ) -> Float[Array, "k length d"]:
        query = self.queries(x)
        if across:
            key, value = self.once(not_before(x, cast(Array, sight.states)))
            out = attention(query, key, value, sight.states_mask, scoring=self.scoring)
        else:
            key, value = self.remember(*self.keys_values(x), sight.positions)
            out = attention(query, key, value, sight.mask, sight.bias, self.scoring)
        return self.output(out, x.shape[-1])

    def once(self, states: Float[Array, "k source d"]) -> tuple[Array, Array]:
        """Keys and values of the encoder's states, which never change: with a cache, made once."""
        if not self.cache_length:
            return self.keys_values(states)
        return self.variable("cache", "states", lambda: self.keys_values(states)).value


class StackBlock(nn.Module):
    """One layer: attention, in the decoder also attention to the encoder's states, MLP.

    A family says its `attention`, how the `mlp` is made, and what it means to `add` one of them.
    """

    config: Any
    dtype: Any
    cache_length: int = 0
    causal: bool = False

    attention: ClassVar[type[StackAttention]]

    def add(
        self, x: Float[Array, "k length d"], part: Callable[[Array], Array], name: str
    ) -> Float[Array, "k length d"]:
        """x + part(x), with a norm of the name `name`_norm somewhere in it."""
        raise NotImplementedError

    def mlp(self) -> nn.Module:
        """The MLP, of the name `mlp`."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: Float[Array, "k length d"], sight: Sight) -> Float[Array, "k length d"]:
        fields = (self.config, self.dtype, self.cache_length, self.causal)
        for name in ("attention", "cross_attention") if self.causal else ("attention",):
            layer = self.attention(*fields, name=name)
            attend = partial(layer, sight=sight, across=name == "cross_attention")
            x = self.add(x, attend, name)
        return self.add(x, self.mlp(), "mlp")


class Stack(nn.Module):
    """Blocks `start` up to `stop` of the encoder, or (`causal`) of the decoder.

    A family says its `block_type`, and what it does before, beside and after the blocks.

    Args:
      keep: numbers of the blocks before which the states are kept, of an encoder that begins with
        tokens; `stop`: after the last of these blocks.
      alike: as in `OneStack`.
    """

    config: Any
    dtype: Any
    causal: bool
    start: int
    stop: int
    cache_length: int = 0
    keep: tuple[int, ...] = ()
    alike: bool = False

    block_type: ClassVar[type[StackBlock]]

    def embed(
        self,
        embedding: Float[Array, "vocabulary d"],
        tokens: Int[Array, "k length"],
        positions: Int[Array, "k length"],
    ) -> Float[Array, "k length d"]:
        """The states before the first block: a row of the embedding for each token."""
        del positions
        return embedded(embedding, tokens)

    def biases(
        self, asking: Int[Array, "k length"], keys: Int[Array, "1 keys"]
    ) -> Sequence[Float[Array, "k heads length keys"] | None]:
        """What to add to the scores of the tokens' attention to each other, in each block."""
        del asking, keys
        return [None] * (self.stop - self.start)

    def finish(self, x: Float[Array, "k length d"]) -> Float[Array, "k length d"]:
        """What is done with the states after `stop`."""
        return x

    @nn.compact
    def __call__(
        self, x: Array, inputs: Inputs, embedding: Float[Array, "vocabulary d"]
    ) -> tuple[Float[Array, "k length d"], Seen | None]:
        """The states after the blocks, of x: tokens [k, length], or states [k, length, d]; and
        those that were to be kept."""
        tokens, kept, seen = x, [], None
        positions = inputs.positions if self.causal else None
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        if x.ndim == 2:
            x = self.embed(embedding, x, positions).astype(self.dtype)
        keys = jnp.arange(self.cache_length or x.shape[1])[None]
        source = None if inputs.mask is None else inputs.mask[:, None]
        mask = everything_before(positions, keys) if self.causal else source
        states: Any = inputs.x if self.causal else None
        sight = Sight(positions, mask, None, states, source)
        fields = (self.config, self.dtype, self.cache_length, self.causal)
        for i, bias in enumerate([*self.biases(positions, keys), None], self.start):
            x = self.finish(x) if i == self.stop else x
            if i in self.keep:
                kept.append(x)
                if len(kept) == len(self.keep):
                    seen = Seen(tokens, jnp.stack(kept, axis=2), inputs.mask)
                    tell_of_all(seen)
            if i < self.stop:
                block = self.block_type(*fields, name=f"block_{i}")
                run = partial(run_block, block) if self.alike else block
                x = run(x, sight._replace(bias=bias))
        return x, seen


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
