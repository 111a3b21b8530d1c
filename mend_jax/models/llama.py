"""The Llama family: Llama 2/3, Mistral, SmolLM2, Qwen2/2.5/3, and models of the same blocks.

RMS norm, rotary grouped-query attention, SwiGLU; Touvron et al. 2023 (arXiv 2302.13971). Qwen2 has
biases on queries, keys and values; Qwen3 norms each head's queries and keys instead. Module and
parameter names follow Hugging Face's `LlamaForCausalLM`.

    tokens [k, length] -> embed -> layers_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Array, Float, Int

from mend_jax.models import declared
from mend_jax.models.attention import Heads, rotary
from mend_jax.models.causal import CausalAttention, CausalBlock, CausalModel
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
from mend_jax.models.layers import MLP, Head, Linear, RMSNorm
from mend_jax.models.one_stack import Places, Sizes
from mend_jax.models.rotary_scaling import Scaling, read_rotary, rotary_frequencies
from mend_jax.models.settings import Declared, check_heads, require, settle
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
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: Scaling = ()
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 2048
    sliding_window: int | None = None  # a token attends to so many, itself included

    qkv_bias: ClassVar[bool] = False
    qk_norm: ClassVar[bool] = False
    declared: ClassVar[Declared] = declared.LLAMA

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "LlamaConfig":
        """Reads a Hugging Face config.json (the names of the tensors are not needed).

        Raises:
          ConfigError: a setting, a rotary scaling, or a window in some layers only, that is not
            implemented.
        """
        del names
        said = settle(config, cls.declared)
        heads = said["num_attention_heads"]
        if said["head_dim"] is None:
            check_heads(said, "hidden_size", "num_attention_heads")
            said["head_dim"] = said["hidden_size"] // heads
        said["num_key_value_heads"] = said["num_key_value_heads"] or heads
        check_heads(said, "num_attention_heads", "num_key_value_heads")
        theta, scaling = read_rotary(said)
        window = _window(said)
        own = {"rope_theta": theta, "rope_scaling": scaling, "sliding_window": window}
        return read_dimensions(cls, said | own)


@dataclass(frozen=True)
class MistralConfig(LlamaConfig):
    """Mistral: a window, of 4,096 tokens if the file names none and does not say null."""

    declared: ClassVar[Declared] = declared.MISTRAL


@dataclass(frozen=True)
class Qwen2Config(LlamaConfig):
    """Qwen2 and 2.5: queries, keys and values have biases."""

    qkv_bias: ClassVar[bool] = True
    declared: ClassVar[Declared] = declared.QWEN2


@dataclass(frozen=True)
class Qwen3Config(LlamaConfig):
    """Qwen3: each head's queries and keys are normed before they are turned."""

    qk_norm: ClassVar[bool] = True
    declared: ClassVar[Declared] = declared.QWEN3


def _window(said: Mapping[str, Any]) -> int | None:
    """The sliding window of all layers; Qwen's first `max_window_layers` have none."""
    window = said.get("sliding_window") if said.get("use_sliding_window", True) else None
    if "layer_types" not in said:
        return window
    n, whole, kinds = said["num_hidden_layers"], said["max_window_layers"], said["layer_types"]
    if kinds is None:
        plain = n if window is None else min(whole, n)
        kinds = ["full_attention"] * plain + ["sliding_attention"] * (n - plain)
    require(len(kinds) == n, f"layer_types names {len(kinds)} of {n} layers")
    if all(kind == "full_attention" for kind in kinds):
        return None
    require(
        window is not None and all(kind == "sliding_attention" for kind in kinds),
        f"layer_types = {kinds!r} with sliding_window = {window} is not supported: a window in "
        "some layers only, or another kind of attention, is not implemented",
    )
    return window


class Attention(CausalAttention):
    """Grouped-query attention with rotary positions."""

    config: LlamaConfig

    names = ("q_proj", "k_proj", "v_proj", "o_proj")

    @property
    def heads(self) -> Heads:
        """Fewer of the keys than of the queries, in most models."""
        c = self.config
        return Heads(c.num_attention_heads, c.num_key_value_heads, c.head_dim)

    def linear(self, name: str, features: int) -> Linear:
        """With a bias on queries, keys and values, if at all."""
        bias = self.config.qkv_bias and name != "o_proj"
        return Linear(features, use_bias=bias, dtype=self.dtype, name=name)

    def prepare(
        self, query: Array, key: Array, asking: Int[Array, "k queries"], places: Places
    ) -> tuple[Array, Array]:
        """Normed if the model norms them, then turned by their positions."""
        c = self.config
        frequencies = rotary_frequencies(c.head_dim, c.rope_theta, c.rope_scaling)
        if c.qk_norm:
            query = RMSNorm(c.rms_norm_eps, name="q_norm")(query)
            key = RMSNorm(c.rms_norm_eps, name="k_norm")(key)
        return rotary(query, asking, frequencies), rotary(key, places.positions, frequencies)


class Block(CausalBlock):
    """One layer; its MLP is down(silu(gate x) * up x)."""

    config: LlamaConfig

    attention = Attention
    names = ("input_layernorm", "self_attn", "post_attention_layernorm")

    def norm(self, name: str) -> RMSNorm:
        """Without a bias."""
        return RMSNorm(self.config.rms_norm_eps, name=name)

    def mlp(self) -> MLP:
        """Gated, without biases."""
        names = ("gate_proj", "up_proj", "down_proj")
        inner = self.config.intermediate_size
        return MLP(inner, "silu", self.dtype, names, bias=False, name="mlp")


class Llama(CausalModel):
    """The model, or stages of it. Stages: embed, layers_0, ..., head."""

    config: LlamaConfig

    block_name = "layers"
    block_type = Block

    @property
    def sizes(self) -> Sizes:
        """Of the whole model; it has no table of positions."""
        c = self.config
        return Sizes(c.vocab_size, c.hidden_size, c.num_hidden_layers)

    def window(self, number: int) -> int | None:
        """The same in all layers."""
        return self.config.sliding_window

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """Tied to the embedding, or by a table of its own."""
        norm = partial(RMSNorm, self.config.rms_norm_eps, name="norm")
        return Head(norm, self.config.tie_word_embeddings, name="head")(x, embedding)


def default_sites(config: LlamaConfig) -> str:
    """Gate and up projections of the last three blocks' MLPs.

    Their input, the normed residual stream, tells two phrasings of a fact from two facts of a
    relation better than the input of the down projection does.
    """
    return rf"layers_({last_blocks(config.num_hidden_layers, 3)})/mlp/(gate|up)_proj"


def expected_weights(config: LlamaConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    c = config
    d, f, hd = c.hidden_size, c.intermediate_size, c.head_dim
    heads, kv = c.num_attention_heads * hd, c.num_key_value_heads * hd
    block = expect_linear("self_attn.o_proj", (heads, d), bias=False)
    for name, features in {"q": heads, "k": kv, "v": kv}.items():
        block |= expect_linear(f"self_attn.{name}_proj", (d, features), bias=c.qkv_bias)
    for name, shape in {"gate": (d, f), "up": (d, f), "down": (f, d)}.items():
        block |= expect_linear(f"mlp.{name}_proj", shape, bias=False)
    norms = {"input_layernorm": d, "post_attention_layernorm": d}
    if c.qk_norm:
        norms |= {"self_attn.q_norm": hd, "self_attn.k_norm": hd}
    for name, width in norms.items():
        block |= expect_norm(name, width, bias=False)
    table = expect_table("model.embed_tokens", (c.vocab_size, d), "embedding")
    if not c.tie_word_embeddings:
        table |= expect_table("lm_head", (c.vocab_size, d), "head/embedding")
    table |= expect_blocks(c.num_hidden_layers, "model.layers", "layers", block)
    return table | expect_norm("model.norm", d, "head/norm", bias=False)


PARTITION: Partition = (
    (r"(head/)?embedding", ("model", None)),
    *features_apart("(q|k|v|gate|up)_proj", "(o|down)_proj"),
)

SPARE = {r".*rotary_emb\.inv_freq": "made from rope_theta"}
COPIES = {"lm_head.weight": "model.embed_tokens.weight"}

FAMILY = Family(
    LlamaConfig.from_hf, Llama, expected_weights, default_sites, PARTITION, SPARE, COPIES
)
MISTRAL = FAMILY._replace(dimensions=MistralConfig.from_hf)
QWEN2 = FAMILY._replace(dimensions=Qwen2Config.from_hf)
QWEN3 = FAMILY._replace(dimensions=Qwen3Config.from_hf)
