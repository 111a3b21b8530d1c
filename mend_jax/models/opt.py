"""OPT: GPT-2's blocks with ReLU, and learned positions whose first two rows are for padding.

Zhang et al. 2022 (arXiv 2205.01068). OPT-350m norms after each sum, and its embeddings are narrower
than the model: it is not implemented. Module names follow Hugging Face's `OPTForCausalLM`.

    tokens [k, length] -> embed -> layers_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models import declared
from mend_jax.models.attention import Heads, heads_alike
from mend_jax.models.causal import CausalAttention, CausalBlock, CausalModel, Names
from mend_jax.models.family import (
    Family,
    expect_blocks,
    expect_linear,
    expect_norm,
    expect_table,
    features_apart,
    last_blocks,
    read_dimensions,
)
from mend_jax.models.layers import EMBEDDING_INIT, MLP, Head, Linear, layer_norm
from mend_jax.models.one_stack import Sizes
from mend_jax.models.settings import check_heads, require, settle
from mend_jax.parallel import Partition
from mend_jax.weights import Expected

_EPSILON = 1e-5
_OFFSET = 2
"""Rows of the table of positions before the first token's."""


@dataclass(frozen=True)
class OPTConfig:
    """The dimensions; field names are those of Hugging Face's config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    ffn_dim: int
    max_position_embeddings: int = 2048
    activation_function: str = "relu"
    enable_bias: bool = True
    final_norm: bool = True

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "OPTConfig":
        """Reads a Hugging Face config.json (the names of the tensors are not needed).

        Raises:
          ConfigError: a setting that is not implemented.
        """
        del names
        said = settle(config, declared.OPT)
        check_heads(said, "hidden_size", "num_attention_heads")
        width = said["word_embed_proj_dim"]
        require(
            width in (None, said["hidden_size"]),
            f"word_embed_proj_dim = {width} is not supported (hidden_size is: embeddings that are "
            "as wide as the model)",
        )
        return read_dimensions(cls, said, final_norm=not said["_remove_final_layer_norm"])


class Attention(CausalAttention):
    """With biases, in most models."""

    config: OPTConfig

    @property
    def heads(self) -> Heads:
        """As wide together as the model."""
        return heads_alike(self.config.num_attention_heads, self.config.hidden_size)

    def linear(self, name: str, features: int) -> Linear:
        """With a bias, if the model has them."""
        bias = self.config.enable_bias
        return Linear(features, use_bias=bias, dtype=self.dtype, name=name)


class Block(CausalBlock):
    """One layer."""

    config: OPTConfig

    attention = Attention

    @property
    def names(self) -> Names:
        """Theirs."""
        return Names("self_attn", "self_attn_layer_norm", None, "final_layer_norm")

    def norm(self, name: str) -> nn.Module:
        """LayerNorm."""
        return layer_norm(_EPSILON, self.dtype, name)

    def mlp(self) -> MLP:
        """fc2(act(fc1 x))."""
        c, names = self.config, ("fc1", "fc2")
        bias = c.enable_bias
        return MLP(c.ffn_dim, c.activation_function, self.dtype, names, bias, name="mlp")


class OPT(CausalModel):
    """The model, or stages of it. Stages: embed, layers_0, ..., head."""

    config: OPTConfig

    block_name = "layers"
    block_type = Block

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.max_position_embeddings)

    def embed(
        self,
        embedding: Float[Array, "vocabulary d"],
        tokens: Int[Array, "k length"],
        positions: Int[Array, "k length"],
    ) -> Float[Array, "k length d"]:
        """Token and position, added."""
        rows = self.config.max_position_embeddings + _OFFSET
        table = self.param("position_embedding", EMBEDDING_INIT, (rows, self.config.hidden_size))
        x = super().embed(embedding, tokens, positions)
        return x + jnp.take(table, positions + _OFFSET, axis=0)

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """The last norm, if there is one, then logits against the embedding."""
        norm = partial(layer_norm, _EPSILON, self.dtype, "final_layer_norm")
        return Head(norm if self.config.final_norm else None, name="head")(x, embedding)


def default_sites(config: OPTConfig) -> str:
    """MLPs of the last three blocks."""
    return rf"layers_({last_blocks(config.num_hidden_layers, 3)})/mlp/(fc1|fc2)"


def expected_weights(config: OPTConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    c, stack = config, "model.decoder"
    d, rows = c.hidden_size, c.max_position_embeddings + _OFFSET
    block = expect_norm("self_attn_layer_norm", d) | expect_norm("final_layer_norm", d)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        block |= expect_linear(f"self_attn.{name}", (d, d), bias=c.enable_bias)
    block |= expect_linear("fc1", (d, c.ffn_dim), "mlp/fc1", bias=c.enable_bias)
    block |= expect_linear("fc2", (c.ffn_dim, d), "mlp/fc2", bias=c.enable_bias)
    table = expect_table(f"{stack}.embed_tokens", (c.vocab_size, d), "embedding")
    table |= expect_table(f"{stack}.embed_positions", (rows, d), "position_embedding")
    table |= expect_blocks(c.num_hidden_layers, f"{stack}.layers", "layers", block)
    if c.final_norm:
        table |= expect_norm(f"{stack}.final_layer_norm", d, "head/final_layer_norm")
    return table


PARTITION: Partition = (
    (r"embedding", ("model", None)),
    *features_apart("q_proj|k_proj|v_proj|fc1", "out_proj|fc2", biases=True),
)

COPIES = {"lm_head.weight": "model.decoder.embed_tokens.weight"}

FAMILY = Family(
    OPTConfig.from_hf, OPT, expected_weights, default_sites, PARTITION, copies=COPIES
)
