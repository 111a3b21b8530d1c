"""BART: an encoder-decoder with learned positions and norms after each sum.

Lewis et al. 2019 (arXiv 1910.13461); facebook/bart-base, bart-large and what was made of them.
Biases everywhere, embeddings normed in both stacks, and a tied head with one more bias.

    x [k, length] -> embed -> encoder/block_0 ... -> x: encoder states [k, length, d]
    target [k, answers] -> decoder/block_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mend_jax.models.family import Family, expect_linear, expect_norm, last_blocks
from mend_jax.models.layers import (
    ACTIVATIONS,
    Cache,
    Linear,
    attention,
    checked_activation,
    everything_before,
    layer_norm,
    logits_against,
)
from mend_jax.models.seq2seq import EncoderDecoder, Sizes
from mend_jax.models.stages import Inputs
from mend_jax.parallel import Partition
from mend_jax.weights import Expected

_OFFSET = 2
"""Row of the position table that belongs to position 0 (fairseq kept two rows for padding)."""


@dataclass(frozen=True)
class BartConfig:
    """The dimensions; field names are those of Hugging Face's config.json.

    logits_bias: whether there is a tensor `final_logits_bias` (a bare BartModel has none).
    """

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    max_position_embeddings: int = 1024
    activation_function: str = "gelu"
    scale_embedding: bool = False
    logits_bias: bool = True
    decoder_start_token_id: int = 2
    eos_token_id: int = 2

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "BartConfig":
        """Reads a Hugging Face config.json; `names` are the tensors that there are.

        Raises:
          ValueError: an activation, or a head of its own, that is not implemented.
        """
        activation = checked_activation(config.get("activation_function", "gelu"), "BART")
        if not config.get("tie_word_embeddings", True):
            raise ValueError("BART with a head of its own (tie_word_embeddings) is not implemented")
        eos = config.get("eos_token_id", 2)
        start = config.get("decoder_start_token_id")
        return cls(
            vocab_size=config["vocab_size"],
            d_model=config["d_model"],
            encoder_layers=config["encoder_layers"],
            decoder_layers=config["decoder_layers"],
            encoder_attention_heads=config["encoder_attention_heads"],
            decoder_attention_heads=config["decoder_attention_heads"],
            encoder_ffn_dim=config["encoder_ffn_dim"],
            decoder_ffn_dim=config["decoder_ffn_dim"],
            max_position_embeddings=config.get("max_position_embeddings", 1024),
            activation_function=activation,
            scale_embedding=config.get("scale_embedding", False),
            logits_bias=not names or "final_logits_bias" in names,
            decoder_start_token_id=eos if start is None else start,
            eos_token_id=eos,
        )


class Attention(nn.Module):
    """Attention with biases: to itself (with a cache: to what it has seen), or to `states`."""

    config: BartConfig
    dtype: Any
    heads: int
    cache_length: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k queries d"],
        mask: Bool[Array, "k #queries keys"] | None,
        states: Float[Array, "k keys d"] | None = None,
        positions: Int[Array, "k queries"] | None = None,
    ) -> Float[Array, "k queries d"]:
        width = self.config.d_model

        def project(name: str, x: Array) -> Array:
            y = Linear(width, dtype=self.dtype, name=name)(x)
            return y.reshape(*y.shape[:2], self.heads, width // self.heads)

        query = project("q_proj", x)
        if states is None:
            key, value = project("k_proj", x), project("v_proj", x)
            if self.cache_length and positions is not None:
                key = Cache(self.cache_length, name="key_cache")(key, positions)
                value = Cache(self.cache_length, name="value_cache")(value, positions)
        elif self.cache_length:  # the encoder's states never change: projected once
            key = self.variable("cache", "key", lambda: project("k_proj", states)).value
            value = self.variable("cache", "value", lambda: project("v_proj", states)).value
        else:
            key, value = project("k_proj", states), project("v_proj", states)
        return Linear(width, dtype=self.dtype, name="out_proj")(attention(query, key, value, mask))


class MLP(nn.Module):
    """fc2(act(fc1 x))."""

    config: BartConfig
    dtype: Any
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "k length d"]) -> Float[Array, "k length d"]:
        c = self.config
        h = Linear(self.features, dtype=self.dtype, name="fc1")(x)
        h = ACTIVATIONS[c.activation_function](h)
        return Linear(c.d_model, dtype=self.dtype, name="fc2")(h)


_EPSILON = 1e-5


class Block(nn.Module):
    """One layer: attention, in the decoder also attention to the encoder's states, MLP."""

    config: BartConfig
    dtype: Any
    heads: int
    features: int
    cache_length: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k length d"],
        mask: Bool[Array, "k #length keys"] | None,
        positions: Int[Array, "k length"],
        states: Float[Array, "k source d"] | None = None,
        states_mask: Bool[Array, "k 1 source"] | None = None,
    ) -> Float[Array, "k length d"]:
        c, dtype = self.config, self.dtype

        def attend(name: str) -> Attention:
            return Attention(c, dtype, self.heads, self.cache_length, name=name)

        x = x + attend("attention")(x, mask, positions=positions)
        x = layer_norm(_EPSILON, dtype, "attention_norm")(x)
        if states is not None:
            x = x + attend("cross_attention")(x, states_mask, states)
            x = layer_norm(_EPSILON, dtype, "cross_attention_norm")(x)
        x = x + MLP(c, dtype, self.features, name="mlp")(x)
        return layer_norm(_EPSILON, dtype, "mlp_norm")(x)


class Stack(nn.Module):
    """Blocks `start` up to `stop` of the encoder or decoder; `embed`: x is tokens, not states.

    Raises:
      ValueError: more positions than the model has.
    """

    config: BartConfig
    dtype: Any
    causal: bool
    embed: bool
    start: int
    stop: int
    cache_length: int = 0

    @nn.compact
    def __call__(
        self,
        x: Array,
        inputs: Inputs,
        embedding: Float[Array, "vocabulary d"],
        states: Float[Array, "k source d"] | None = None,
    ) -> Float[Array, "k length d"]:
        c = self.config
        k, length = x.shape[:2]
        asking = inputs.positions if self.causal else None
        if asking is None:
            asking = jnp.broadcast_to(jnp.arange(length), (k, length))
        if self.embed:
            if (longest := max(length, self.cache_length)) > c.max_position_embeddings:
                raise ValueError(
                    f"{longest} tokens are more than the {c.max_position_embeddings} positions "
                    "of this BART"
                )
            rows = (c.max_position_embeddings + _OFFSET, c.d_model)
            table = self.param("position_embedding", nn.initializers.normal(0.02), rows)
            scale = c.d_model**0.5 if c.scale_embedding else 1.0
            x = (embedding[x] * scale + table[asking + _OFFSET]).astype(self.dtype)
            x = layer_norm(_EPSILON, self.dtype, "embedding_norm")(x)
        source = None if inputs.mask is None else inputs.mask[:, None]
        mask = source
        if self.causal:
            heads, features = c.decoder_attention_heads, c.decoder_ffn_dim
            mask = everything_before(asking, jnp.arange(self.cache_length or length))
        else:
            heads, features = c.encoder_attention_heads, c.encoder_ffn_dim
        for i in range(self.start, self.stop):
            block = Block(c, self.dtype, heads, features, self.cache_length, name=f"block_{i}")
            x = block(x, mask, asking, states, source)
        return x


class Head(nn.Module):
    """Logits in float32 against the embedding, plus a bias."""

    config: BartConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        logits = logits_against(x, embedding)
        if self.config.logits_bias:
            shape = (1, self.config.vocab_size)  # as it is stored
            logits += self.param("bias", nn.initializers.zeros, shape).astype(jnp.float32)
        return logits


class Bart(EncoderDecoder):
    """The model, or stages of it."""

    config: BartConfig

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.d_model, c.encoder_layers, c.decoder_layers)

    def encode(self, inputs: Inputs, embedding: Array, first: int, last: int) -> Array:
        """The first stage is in the stack, with its positions and norm."""
        stack = Stack(self.config, self.dtype, False, self.start == 0, first, last, name="encoder")
        return stack(inputs.x, inputs, embedding)

    def decode(self, inputs: Inputs, embedding: Array, first: int, last: int) -> Array:
        """The same."""
        embed, cache = self.start <= self.decoding, self.cache_length
        stack = Stack(self.config, self.dtype, True, embed, first, last, cache, name="decoder")
        target: Any = inputs.target
        return stack(target, inputs, embedding, inputs.x)

    def read_out(self, x: Array, embedding: Array) -> Array:
        """Tied to the embedding, with a bias."""
        return Head(self.config, name="head")(x, embedding)


def default_sites(config: BartConfig) -> str:
    """MLPs of the last two encoder and decoder blocks (the paper's choice)."""
    encoder = last_blocks(config.encoder_layers, 2)
    decoder = last_blocks(config.decoder_layers, 2)
    return rf"(encoder/block_({encoder})|decoder/block_({decoder}))/mlp/fc[12]"


def expected_weights(config: BartConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    c = config
    d = c.d_model
    table = {"model.shared.weight": Expected(("embedding",), (c.vocab_size, d), False)}
    if c.logits_bias:
        table["final_logits_bias"] = Expected(("head", "bias"), (1, c.vocab_size), False)

    selves, across = ("self_attn", "attention"), ("encoder_attn", "cross_attention")
    for stack, blocks, features, attentions in (
        ("encoder", c.encoder_layers, c.encoder_ffn_dim, (selves,)),
        ("decoder", c.decoder_layers, c.decoder_ffn_dim, (selves, across)),
    ):
        rows = (c.max_position_embeddings + _OFFSET, d)
        positions = Expected((stack, "position_embedding"), rows, False)
        table[f"model.{stack}.embed_positions.weight"] = positions
        table |= expect_norm(f"model.{stack}.layernorm_embedding", f"{stack}/embedding_norm", d)
        for i in range(blocks):
            layer, block = f"model.{stack}.layers.{i}", f"{stack}/block_{i}"
            for theirs, ours in attentions:
                for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    kernel = f"{block}/{ours}/{name}"
                    table |= expect_linear(f"{layer}.{theirs}.{name}", kernel, (d, d))
                table |= expect_norm(f"{layer}.{theirs}_layer_norm", f"{block}/{ours}_norm", d)
            table |= expect_linear(f"{layer}.fc1", f"{block}/mlp/fc1", (d, features))
            table |= expect_linear(f"{layer}.fc2", f"{block}/mlp/fc2", (features, d))
            table |= expect_norm(f"{layer}.final_layer_norm", f"{block}/mlp_norm", d)
    return table


PARTITION: Partition = (
    (r"embedding", (None, "model")),
    (r".*/(q_proj|k_proj|v_proj|fc1)/kernel", (None, "model")),
    (r".*/(q_proj|k_proj|v_proj|fc1)/bias", ("model",)),
    (r".*/(out_proj|fc2)/kernel", ("model", None)),
)
"""Heads and MLP features apart. The vocabulary has 50,265 tokens, which no even number of devices
divides, so the embedding is spread by its features."""

FAMILY = Family(BartConfig.from_hf, Bart, expected_weights, default_sites, PARTITION)
