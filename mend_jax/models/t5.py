"""T5: 1.0 (ReLU, tied head) and 1.1 (gated GELU, head of its own), and all that was made of them.

Raffel et al. 2020 (arXiv 1910.10683); google/t5-*-ssm-nq, t5-*-lm-adapt and flan-t5-* are of these
two kinds. Relative position biases (one table a stack), RMS norm, no biases, no 1/sqrt(d).

    x [k, length] -> embed -> encoder/block_0 ... -> x: encoder states [k, length, d]
    target [k, answers] -> decoder/block_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models.family import Family, expect_linear, expect_norm, last_blocks
from mend_jax.models.layers import (
    ACTIVATIONS,
    Cache,
    Linear,
    RMSNorm,
    attention,
    checked_activation,
    everything_before,
    logits_against,
)
from mend_jax.models.seq2seq import EncoderDecoder, Sizes
from mend_jax.models.stages import Inputs
from mend_jax.parallel import Partition
from mend_jax.weights import Expected


@dataclass(frozen=True)
class T5Config:
    """The dimensions; field names are those of Hugging Face's config.json."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    gated: bool = False
    activation: str = "relu"
    tied: bool = True
    scale_decoder_outputs: bool = True
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    decoder_start_token_id: int = 0
    eos_token_id: int = 1

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "T5Config":
        """Reads a Hugging Face config.json; `names` are the tensors that there are.

        Whether the head is tied cannot be told from a config written by transformers 5: a tensor
        `lm_head.weight` says that it is not.

        Raises:
          ValueError: an activation that is not implemented.
        """
        kind = config.get("feed_forward_proj", "relu")
        gated = kind.startswith("gated-")
        activation = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
        tied = config.get("tie_word_embeddings", True)
        return cls(
            vocab_size=config["vocab_size"],
            d_model=config["d_model"],
            d_kv=config["d_kv"],
            d_ff=config["d_ff"],
            num_layers=config["num_layers"],
            num_decoder_layers=config.get("num_decoder_layers") or config["num_layers"],
            num_heads=config["num_heads"],
            gated=gated,
            activation=checked_activation(activation, "T5"),
            tied=tied and "lm_head.weight" not in names,
            scale_decoder_outputs=config.get("scale_decoder_outputs", tied),
            relative_attention_num_buckets=config.get("relative_attention_num_buckets", 32),
            relative_attention_max_distance=config.get("relative_attention_max_distance", 128),
            layer_norm_epsilon=config.get("layer_norm_epsilon", 1e-6),
            decoder_start_token_id=config.get("decoder_start_token_id") or 0,
            eos_token_id=config.get("eos_token_id") or 1,
        )


def relative_bucket(
    distance: Int[Array, "queries keys"], both_ways: bool, buckets: int, farthest: int
) -> Int[Array, "queries keys"]:
    """Row of the bias table for key position minus query position.

    Half of the buckets (of a direction) hold one distance each; in the others the distances grow
    by a constant factor up to `farthest`, and everything beyond falls into the last.
    """
    first = jnp.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    ratio = jnp.log(jnp.maximum(distance, 1) / exact) / jnp.log(farthest / exact)
    wide = jnp.minimum(exact + (ratio * (buckets - exact)).astype(jnp.int32), buckets - 1)
    return first + jnp.where(distance < exact, distance, wide)


class Attention(nn.Module):
    """Attention of T5: no biases, no scaling; `bias` carries positions and the mask.

    Without `states` it attends to itself (with a cache: to what it has seen), else to them.
    """

    config: T5Config
    dtype: Any
    cache_length: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k queries d"],
        bias: Float[Array, "#k #heads #queries keys"] | None,
        states: Float[Array, "k keys d"] | None = None,
        positions: Int[Array, "k queries"] | None = None,
    ) -> Float[Array, "k queries d"]:
        c = self.config

        def project(name: str, x: Array) -> Array:
            width = c.num_heads * c.d_kv
            spread = (c.d_model * c.d_kv if name == "q" else c.d_model) ** -0.5
            init = nn.initializers.normal(spread)
            y = Linear(width, use_bias=False, dtype=self.dtype, kernel_init=init, name=name)(x)
            return y.reshape(*y.shape[:2], c.num_heads, c.d_kv)

        query = project("q", x)
        if states is None:
            key, value = project("k", x), project("v", x)
            if self.cache_length and positions is not None:
                key = Cache(self.cache_length, name="key_cache")(key, positions)
                value = Cache(self.cache_length, name="value_cache")(value, positions)
        elif self.cache_length:  # the encoder's states never change: projected once
            key = self.variable("cache", "key", lambda: project("k", states)).value
            value = self.variable("cache", "value", lambda: project("v", states)).value
        else:
            key, value = project("k", states), project("v", states)
        out = attention(query, key, value, bias=bias, scale=1.0)
        return Linear(c.d_model, use_bias=False, dtype=self.dtype, name="o")(out)


def _wide(config: T5Config) -> tuple[str, ...]:
    return ("wi_0", "wi_1") if config.gated else ("wi",)


class MLP(nn.Module):
    """wo(act(wi x)), or gated: wo(act(wi_0 x) * wi_1 x)."""

    config: T5Config
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "k length d"]) -> Float[Array, "k length d"]:
        c = self.config

        first, *second = (
            Linear(c.d_ff, use_bias=False, dtype=self.dtype, name=name)(x) for name in _wide(c)
        )
        h = ACTIVATIONS[c.activation](first)
        for gate in second:
            h = h * gate
        return Linear(c.d_model, use_bias=False, dtype=self.dtype, name="wo")(h)


class Block(nn.Module):
    """One layer: attention, in the decoder also attention to the encoder's states, MLP."""

    config: T5Config
    dtype: Any
    cache_length: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k length d"],
        bias: Float[Array, "k heads length keys"],
        states: Float[Array, "k source d"] | None = None,
        states_bias: Float[Array, "k 1 1 source"] | None = None,
        positions: Int[Array, "k length"] | None = None,
    ) -> Float[Array, "k length d"]:
        c, dtype = self.config, self.dtype

        def normed(name: str) -> Array:
            return RMSNorm(c.layer_norm_epsilon, name=name)(x)

        itself = Attention(c, dtype, self.cache_length, name="attention")
        x = x + itself(normed("attention_norm"), bias, positions=positions)
        if states is not None:
            across = Attention(c, dtype, self.cache_length, name="cross_attention")
            x = x + across(normed("cross_attention_norm"), states_bias, states)
        return x + MLP(c, dtype, name="mlp")(normed("mlp_norm"))


class Stack(nn.Module):
    """Blocks `start` up to `stop` of the encoder or decoder; the norm belongs to the last."""

    config: T5Config
    dtype: Any
    blocks: int
    causal: bool
    start: int
    stop: int
    cache_length: int = 0

    @nn.compact
    def __call__(self, x: Array, inputs: Inputs, states: Array | None = None) -> Array:
        c = self.config
        table = self.param(
            "relative_attention_bias",
            nn.initializers.normal(c.d_model**-0.5),
            (c.relative_attention_num_buckets, c.num_heads),
        )
        k, length = x.shape[:2]
        asking = inputs.positions if self.causal else None
        if asking is None:
            asking = jnp.broadcast_to(jnp.arange(length), (k, length))
        keys = jnp.arange(self.cache_length or length)
        bucket = relative_bucket(
            keys - asking[:, :, None],
            not self.causal,
            c.relative_attention_num_buckets,
            c.relative_attention_max_distance,
        )
        bias = jnp.moveaxis(table[bucket].astype(jnp.float32), -1, 1)
        source = _hide(inputs.mask)
        if self.causal:
            bias = jnp.where(everything_before(asking, keys)[:, None], bias, _HIDDEN)
        else:
            bias = bias + source
        for i in range(self.start, self.stop):
            block = Block(c, self.dtype, self.cache_length, name=f"block_{i}")
            x = block(x, bias, states, source, asking)
        if self.stop == self.blocks:
            x = RMSNorm(c.layer_norm_epsilon, name="final_layer_norm")(x)
        return x


_HIDDEN = float(jnp.finfo(jnp.float32).min)


def _hide(mask: Array | None) -> Float[Array, "k 1 1 keys"]:
    """What to add to the scores so that padding is not attended to."""
    if mask is None:
        return jnp.zeros((1, 1, 1, 1))
    return jnp.where(mask, 0.0, _HIDDEN)[:, None, None, :]


class Head(nn.Module):
    """Logits in float32 against the embedding (scaled by 1/sqrt(d) in T5 1.0), or its own table."""

    config: T5Config

    @nn.compact
    def __call__(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        c = self.config
        if c.scale_decoder_outputs:
            x = x * c.d_model**-0.5
        table = embedding
        if not c.tied:
            init = nn.initializers.normal(c.d_model**-0.5)
            table = self.param("embedding", init, (c.vocab_size, c.d_model))
        return logits_against(x, table)


class T5(EncoderDecoder):
    """The model, or stages of it."""

    config: T5Config

    spread = 0.05

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.d_model, c.num_layers, c.num_decoder_layers)

    def encode(self, inputs: Inputs, embedding: Array, first: int, last: int) -> Array:
        """The positions are in the attention, so a token's state is its row of the embedding."""
        x = inputs.x
        if self.start == 0:
            x = jnp.take(embedding, x, axis=0).astype(self.dtype)
        if first == last:
            return x
        c = self.config
        return Stack(c, self.dtype, c.num_layers, False, first, last, name="encoder")(x, inputs)

    def decode(self, inputs: Inputs, embedding: Array, first: int, last: int) -> Array:
        """The same."""
        c = self.config
        target: Any = inputs.target
        if self.start <= self.decoding:
            target = jnp.take(embedding, target, axis=0).astype(self.dtype)
        blocks, cache = c.num_decoder_layers, self.cache_length
        stack = Stack(c, self.dtype, blocks, True, first, last, cache, name="decoder")
        return stack(target, inputs, inputs.x)

    def read_out(self, x: Array, embedding: Array) -> Array:
        """Tied to the embedding, or by a table of its own."""
        return Head(self.config, name="head")(x, embedding)


def default_sites(config: T5Config) -> str:
    """MLPs of the last two encoder and decoder blocks, wi_1 left out (the paper's choice)."""
    encoder = last_blocks(config.num_layers, 2)
    decoder = last_blocks(config.num_decoder_layers, 2)
    return rf"(encoder/block_({encoder})|decoder/block_({decoder}))/mlp/(wi|wi_0|wo)"


def expected_weights(config: T5Config) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    c = config
    d, inner = c.d_model, c.num_heads * c.d_kv
    table = {"shared.weight": Expected(("embedding",), (c.vocab_size, d), False)}
    if not c.tied:
        table["lm_head.weight"] = Expected(("head", "embedding"), (c.vocab_size, d), False)
    mlp = {"wo": (c.d_ff, d)} | {name: (d, c.d_ff) for name in _wide(c)}
    attend = {"q": (d, inner), "k": (d, inner), "v": (d, inner), "o": (inner, d)}
    selves = ("SelfAttention", "attention", attend)
    across = ("EncDecAttention", "cross_attention", attend)
    feed = ("DenseReluDense", "mlp", mlp)
    layers_of: dict[str, tuple[int, tuple[tuple[str, str, dict[str, tuple[int, int]]], ...]]] = {
        "encoder": (c.num_layers, (selves, feed)),
        "decoder": (c.num_decoder_layers, (selves, across, feed)),
    }
    for stack, (blocks, layers) in layers_of.items():
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shape = (c.relative_attention_num_buckets, c.num_heads)
        table[bias] = Expected((stack, "relative_attention_bias"), shape, False)
        for i in range(blocks):
            for j, (theirs, ours, kernels) in enumerate(layers):
                layer = f"{stack}.block.{i}.layer.{j}"
                block = f"{stack}/block_{i}"
                for name, shape in kernels.items():
                    kernel = f"{block}/{ours}/{name}"
                    table |= expect_linear(f"{layer}.{theirs}.{name}", kernel, shape, bias=False)
                table |= expect_norm(f"{layer}.layer_norm", f"{block}/{ours}_norm", d, bias=False)
        norm = f"{stack}/final_layer_norm"
        table |= expect_norm(f"{stack}.final_layer_norm", norm, d, bias=False)
    return table


PARTITION: Partition = (
    (r"(head/)?embedding", ("model", None)),
    (r".*/(q|k|v|wi|wi_0|wi_1)/kernel", (None, "model")),
    (r".*/(o|wo)/kernel", ("model", None)),
)
"""Heads and MLP features apart, so that each device holds whole heads; one sum a layer."""

FAMILY = Family(T5Config.from_hf, T5, expected_weights, default_sites, PARTITION)
