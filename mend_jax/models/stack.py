"""What encoder and decoder of an encoder-decoder share: each is a stack of blocks.

A family is an attention, a block and a stack made of the classes below, and a model of two of them
(`seq2seq.py`).
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
                x = run_block(block, self.alike, x, sight._replace(bias=bias))
        return x, seen
