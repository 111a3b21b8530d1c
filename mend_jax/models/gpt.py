"""What GPT-2, GPT-Neo and GPT-J share: LayerNorm with a bias, and names that begin alike."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models.causal import CausalBlock, CausalModel
from mend_jax.models.family import expect_blocks, expect_norm, expect_table
from mend_jax.models.layers import EMBEDDING_INIT, Head, layer_norm
from mend_jax.models.one_stack import Sizes
from mend_jax.weights import Expected


class Block(CausalBlock):
    """With LayerNorms; a family adds its attention and its MLP."""

    def norm(self, name: str) -> nn.Module:
        """LayerNorm."""
        return layer_norm(self.config.layer_norm_epsilon, self.dtype, name)


class GPT(CausalModel):
    """With a LayerNorm before the head."""

    def head(self, tied: bool, bias: bool) -> Head:
        """Which norms first."""
        norm = partial(layer_norm, self.config.layer_norm_epsilon, self.dtype, "ln_f")
        return Head(norm, tied, bias, name="head")


class TiedGPT(GPT):
    """With learned positions, and a head tied to the embedding."""

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
        return self.head(tied=True, bias=False)(x, embedding)


def expected(sizes: Sizes, block: dict[str, Expected]) -> dict[str, Expected]:
    """Where the tensors of all three go: {name: (path, shape, transposed?)}.

    Args:
      block: those of one block, beside its first norm, without its prefix.
    """
    d = sizes.width
    table = expect_table("transformer.wte", (sizes.vocabulary, d), "embedding")
    block = block | expect_norm("ln_1", d)
    table |= expect_blocks(sizes.blocks, "transformer.h", "h", block)
    return table | expect_norm("transformer.ln_f", d, "head/ln_f")


def expected_positions(sizes: Sizes) -> dict[str, Expected]:
    """Where the table of learned positions goes."""
    assert sizes.positions is not None
    return expect_table("transformer.wpe", (sizes.positions, sizes.width), "position_embedding")
