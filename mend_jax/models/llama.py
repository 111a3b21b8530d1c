"""The Llama family: Llama 2/3, Mistral, SmolLM2, Qwen2/2.5/3, and models of the same blocks.

RMS norm, rotary grouped-query attention, SwiGLU; Touvron et al. 2023 (arXiv 2302.13971). Qwen2 has
biases on queries, keys and values; Qwen3 norms each head's queries and keys instead. Module and
parameter names follow Hugging Face's `LlamaForCausalLM`.

    tokens [k, length] -> embed -> layers_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models.causal import CausalModel, Sizes
from mend_jax.models.family import Family, last_blocks
from mend_jax.models.layers import (
    Cache,
    Linear,
    RMSNorm,
    attention,
    logits_against,
    rotary,
    take,
)
from mend_jax.parallel import Partition
from mend_jax.weights import Expected


@dataclass(frozen=True)
class LlamaConfig:
    """The dimensions; field names are those of Hugging Face's config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: tuple[tuple[str, float], ...] = ()  # Llama 3's, as sorted items
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 2048
    sliding_window: int | None = None  # a token attends to so many, itself included

    qkv_bias: ClassVar[bool] = False
    qk_norm: ClassVar[bool] = False

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "LlamaConfig":
        """Reads a Hugging Face config.json (the names of the tensors are not needed).

        Raises:
          ValueError: a rotary scaling, a window in some layers only, an activation, or biases that
            are not implemented.
        """
        del names
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "llama3"):
            raise ValueError(f"rotary scaling {kind!r} is not implemented (default and llama3 are)")
        scaling = {k: float(v) for k, v in rope.items() if k in _LLAMA3} if kind == "llama3" else {}
        if (act := config.get("hidden_act", "silu")) != "silu":
            raise ValueError(f"hidden_act {act!r} is not implemented (only 'silu' is)")
        if config.get("mlp_bias") or (config.get("attention_bias") and not cls.qkv_bias):
            raise ValueError("biases in the MLP, or in all of the attention, are not implemented")
        heads = config["num_attention_heads"]
        return cls(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            rms_norm_eps=config.get("rms_norm_eps", 1e-5),
            rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            rope_scaling=tuple(sorted(scaling.items())),
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            max_position_embeddings=config.get("max_position_embeddings", 2048),
            sliding_window=_window(config),
        )


@dataclass(frozen=True)
class Qwen2Config(LlamaConfig):
    """Qwen2 and 2.5: queries, keys and values have biases."""

    qkv_bias: ClassVar[bool] = True


@dataclass(frozen=True)
class Qwen3Config(LlamaConfig):
    """Qwen3: each head's queries and keys are normed before they are turned."""

    qk_norm: ClassVar[bool] = True


def _window(config: Mapping[str, Any]) -> int | None:
    """The sliding window of all layers; Qwen's first `max_window_layers` have none."""
    used = config.get("use_sliding_window", "max_window_layers" not in config)
    window = config.get("sliding_window") if used else None
    if not window:
        return None
    n, whole = config["num_hidden_layers"], config.get("max_window_layers", 0)
    implied = ["full_attention" if i < whole else "sliding_attention" for i in range(n)]
    kinds = set(config.get("layer_types") or implied)
    if len(kinds) > 1:
        raise ValueError("a sliding window in some layers only is not implemented")
    return window if kinds == {"sliding_attention"} else None


_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def rotary_frequencies(config: LlamaConfig) -> Float[Array, "half_d"]:
    """Angle per position of each coordinate pair, with Llama 3's scaling where it applies."""
    half = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**half
    if not config.rope_scaling:
        return frequencies
    scaling = dict(config.rope_scaling)
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * jnp.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (smooth + (1 - smooth) / scaling["factor"])


class Attention(nn.Module):
    """Causal grouped-query attention; queries at `read` only where the rest is not needed."""

    config: LlamaConfig
    dtype: Any
    cache_length: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k length d"],
        positions: Int[Array, "k length"],
        read: Int[Array, "k answers"] | None,
    ) -> Float[Array, "k queries d"]:
        c = self.config

        def project(name: str, heads: int, x: Array) -> Array:
            y = Linear(heads * c.head_dim, use_bias=c.qkv_bias, dtype=self.dtype, name=name)(x)
            return y.reshape(*y.shape[:2], heads, c.head_dim)

        def turned(x: Array, name: str, positions: Array) -> Array:
            x = RMSNorm(c.rms_norm_eps, name=name)(x) if c.qk_norm else x
            return rotary(x, positions, frequencies)

        frequencies = rotary_frequencies(c)
        asking = positions if read is None else take(positions, read)
        query = project("q_proj", c.num_attention_heads, x if read is None else take(x, read))
        query = turned(query, "q_norm", asking)
        key = turned(project("k_proj", c.num_key_value_heads, x), "k_norm", positions)
        value = project("v_proj", c.num_key_value_heads, x)
        where = positions
        if self.cache_length:
            key = Cache(self.cache_length, name="key_cache")(key, positions)
            value = Cache(self.cache_length, name="value_cache")(value, positions)
            where = jnp.broadcast_to(jnp.arange(self.cache_length), key.shape[:2])
        mask = where[:, None, :] <= asking[:, :, None]
        if c.sliding_window:
            mask &= where[:, None, :] > asking[:, :, None] - c.sliding_window
        out = attention(query, key, value, mask)
        return Linear(c.hidden_size, use_bias=False, dtype=self.dtype, name="o_proj")(out)


class MLP(nn.Module):
    """down(silu(gate x) * up x)."""

    config: LlamaConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "k length d"]) -> Float[Array, "k length d"]:
        def dense(width: int, name: str) -> Linear:
            return Linear(width, use_bias=False, dtype=self.dtype, name=name)

        gate = dense(self.config.intermediate_size, "gate_proj")(x)
        up = dense(self.config.intermediate_size, "up_proj")(x)
        return dense(self.config.hidden_size, "down_proj")(nn.silu(gate) * up)


class Block(nn.Module):
    """One layer; with `read`, its output holds only these positions."""

    config: LlamaConfig
    dtype: Any
    cache_length: int

    @nn.compact
    def __call__(
        self, x: Array, positions: Int[Array, "k length"], read: Int[Array, "k answers"] | None
    ) -> Array:
        c = self.config
        normed = RMSNorm(c.rms_norm_eps, name="input_layernorm")(x)
        attended = Attention(c, self.dtype, self.cache_length, name="self_attn")(
            normed, positions, read
        )
        x = (x if read is None else take(x, read)) + attended
        normed = RMSNorm(c.rms_norm_eps, name="post_attention_layernorm")(x)
        return x + MLP(c, self.dtype, name="mlp")(normed)


class Head(nn.Module):
    """Final norm, then logits in float32 against the embedding or a kernel of its own."""

    config: LlamaConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        x = RMSNorm(self.config.rms_norm_eps, name="norm")(x)
        table = embedding
        if not self.config.tie_word_embeddings:
            shape = (self.config.vocab_size, self.config.hidden_size)
            table = self.param("embedding", nn.initializers.normal(0.02), shape)
        return logits_against(x, table)


class Llama(CausalModel):
    """The model, or stages of it. Stages: embed, layers_0, ..., head."""

    config: LlamaConfig

    block_name = "layers"

    @property
    def sizes(self) -> Sizes:
        """Of the whole model; it has no table of positions."""
        c = self.config
        return Sizes(c.vocab_size, c.hidden_size, c.num_hidden_layers)

    def block(self, number: int, name: str) -> Block:
        """All are alike."""
        return Block(self.config, self.dtype, self.cache_length, name=name)

    def read_out(self, x: Array, embedding: Array) -> Array:
        """Tied to the embedding, or by a table of its own."""
        return Head(self.config, name="head")(x, embedding)


def default_sites(config: LlamaConfig) -> str:
    """Gate and up projections of the last three blocks' MLPs.

    Their input, the normed residual stream, tells two phrasings of a fact from two facts of a
    relation better than the input of the down projection does.
    """
    return rf"layers_({last_blocks(config.num_hidden_layers, 3)})/mlp/(gate|up)_proj"


def expected_weights(config: LlamaConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    d, f, hd = config.hidden_size, config.intermediate_size, config.head_dim
    heads, kv = config.num_attention_heads * hd, config.num_key_value_heads * hd
    table = {"model.embed_tokens.weight": Expected(("embedding",), (config.vocab_size, d), False)}
    kernels = {
        "self_attn.q_proj": (d, heads),
        "self_attn.k_proj": (d, kv),
        "self_attn.v_proj": (d, kv),
        "self_attn.o_proj": (heads, d),
        "mlp.gate_proj": (d, f),
        "mlp.up_proj": (d, f),
        "mlp.down_proj": (f, d),
    }
    for i in range(config.num_hidden_layers):
        for name, shape in kernels.items():
            path = (f"layers_{i}", *name.split("."), "kernel")
            table[f"model.layers.{i}.{name}.weight"] = Expected(path, shape, True)
        scales = {"input_layernorm": d, "post_attention_layernorm": d}
        if config.qk_norm:
            scales |= {"self_attn.q_norm": hd, "self_attn.k_norm": hd}
        for name, width in scales.items():
            path = (f"layers_{i}", *name.split("."), "scale")
            table[f"model.layers.{i}.{name}.weight"] = Expected(path, (width,), False)
        for name in ("q_proj", "k_proj", "v_proj") if config.qkv_bias else ():
            path = (f"layers_{i}", "self_attn", name, "bias")
            width = kernels[f"self_attn.{name}"][1]
            table[f"model.layers.{i}.self_attn.{name}.bias"] = Expected(path, (width,), False)
    table["model.norm.weight"] = Expected(("head", "norm", "scale"), (d,), False)
    if not config.tie_word_embeddings:
        table["lm_head.weight"] = Expected(("head", "embedding"), (config.vocab_size, d), False)
    return table


PARTITION: Partition = (
    (r"(head/)?embedding", ("model", None)),
    (r".*/(q|k|v|gate|up)_proj/kernel", (None, "model")),
    (r".*/(o|down)_proj/kernel", ("model", None)),
)
"""Heads and MLP features apart; one sum over the devices an attention and one an MLP."""

FAMILY = Family(LlamaConfig.from_hf, Llama, expected_weights, default_sites, PARTITION)
QWEN2 = FAMILY._replace(dimensions=Qwen2Config.from_hf)
QWEN3 = FAMILY._replace(dimensions=Qwen3Config.from_hf)
