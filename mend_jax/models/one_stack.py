"""What models of one stack share: embed -> blocks -> head, run from one stage to another."""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mend_jax.models.alike import run_block
from mend_jax.models.layers import EMBEDDING_INIT, check_positions, embedded
from mend_jax.models.stages import Inputs, Seen, Watch


class Sizes(NamedTuple):
    """Of a model. positions: None if there may be any number of them."""

    vocabulary: int
    width: int
    blocks: int
    positions: int | None = None


class Places(NamedTuple):
    """Of the tokens that a block is given: where they stand, and which of them matter.

    mask: which a position may look at: those that are no padding (None: all). read: at which the
      output is wanted (None: at all).
    """

    positions: Int[Array, "k length"]
    mask: Bool[Array, "k length"] | None
    read: Int[Array, "k answers"] | None


class OneStack(nn.Module):
    """The model, or the stages of it from `start` up to `stop`.

    A family says its `sizes`, and what `embed`, `block` and `read_out` do. They run inside
    `__call__`, where they may make parameters and submodules.

    Args:
      config: the family's dimensions.
      keep: numbers of the stages before which the states are kept beside the carry (`Inputs.seen`),
        all of them in one call: what was seen before is handed on.
      alike: whether blocks that are alike are traced once (see `alike.run_block`).
    """

    config: Any
    dtype: Any = jnp.float32
    start: int = 0
    stop: int | None = None
    keep: tuple[int, ...] = ()
    alike: bool = False

    block_name: ClassVar[str] = "block"

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        raise NotImplementedError

    def places(self, inputs: Inputs) -> Places:
        """Positions are 0, 1, 2, ... unless they are given."""
        if self.start == 0:
            check_positions(self.longest(inputs), self.sizes.positions)
        positions = inputs.positions
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(inputs.x.shape[1]), inputs.x.shape[:2])
        return Places(positions, inputs.mask, inputs.read)

    def longest(self, inputs: Inputs) -> int:
        """How many positions there will be."""
        return inputs.x.shape[1]

    def embed(
        self,
        embedding: Float[Array, "vocabulary d"],
        tokens: Int[Array, "k length"],
        positions: Int[Array, "k length"],
    ) -> Float[Array, "k length d"]:
        """The states before the first block: a row of the embedding for each token."""
        del positions
        return embedded(embedding, tokens)

    def watch(self, seen: Seen, places: Places) -> None:
        """Tells what was seen."""
        at = jnp.broadcast_to(jnp.arange(seen.tokens.shape[1]), seen.tokens.shape)
        Watch(name="watch")(seen, at, places.read)

    def block(self, number: int, name: str) -> nn.Module:
        """block(x [k, length, d], places) -> [k, length or those of `read`, d]."""
        raise NotImplementedError

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers classes"]:
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
        inputs = jax.tree.map(jnp.asarray, inputs)  # outside of jit they may be numpy's
        x, places = inputs.x, self.places(inputs)
        shape = (sizes.vocabulary, sizes.width)
        embedding: Any = None  # blocks alone do without
        if self.start == 0 or stop == last + 2:
            embedding = self.param("embedding", EMBEDDING_INIT, shape)
        tokens, kept = inputs.x, []
        keep = self.keep if inputs.seen is None else ()
        if inputs.seen is not None:
            self.watch(inputs.seen, places)
        for stage in range(self.start, stop):
            if stage in keep:
                kept.append(x)
                if len(kept) == len(keep):
                    self.watch(Seen(tokens, jnp.stack(kept, axis=2), inputs.mask), places)
            if stage == 0:
                x = self.embed(embedding, x, places.positions).astype(self.dtype)
            elif stage <= last:
                block = self.block(stage - 1, self.stages[stage])
                at = places if stage == last else places._replace(read=None)
                x = run_block(block, self.alike, x, at)
            else:
                x = self.read_out(x, embedding)
        if stop == last + 2:
            return x
        if stop in keep:
            kept.append(x)
        if kept:
            seen = Seen(tokens, jnp.stack(kept, axis=2), inputs.mask)
            inputs = inputs._replace(seen=seen)
        return inputs._replace(x=x)
