"""The Llama family: Llama 2/3, Mistral, SmolLM2/3, Qwen2/2.5/3, and models of the same blocks.

RMS norm, rotary grouped-query attention, SwiGLU; Touvron et al. 2023 (arXiv 2302.13971). What the
kin differ in, their dimensions say (`llama_config.py`). Module and parameter names follow Hugging
Face's `LlamaForCausalLM`.

    tokens [k, length] -> embed -> layers_0 ... -> head -> logits [k, answers, vocabulary]
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models import llama_config
from mend_jax.models.attention import Heads, Scoring, rotary
from mend_jax.models.causal import CausalAttention, CausalBlock, CausalModel, Names
from mend_jax.models.family import (
    Family,
    expect_blocks,
    expect_fused,
    expect_linear,
    expect_norm,
    expect_table,
    features_apart,
    last_blocks,
)
from mend_jax.models.layers import MLP, Head, Linear, RMSNorm, capped
from mend_jax.models.llama_config import LlamaConfig
from mend_jax.models.one_stack import Places, Sizes
from mend_jax.models.rotary_scaling import Rotary, magnitude, rotary_frequencies
from mend_jax.parallel import Partition
from mend_jax.weights import Expected


class Layer(NamedTuple):
    """What layers of one model differ in. window: how many keys a position sees (None: all of the
    past). rotary: how it rotates (None: it does not). experts: whether they are its MLP."""

    window: int | None
    rotary: Rotary | None
    experts: bool = False


class Attention(CausalAttention):
    """Grouped-query attention with rotary positions."""

    config: LlamaConfig

    names = ("q_proj", "k_proj", "v_proj", "o_proj")

    @property
    def window(self) -> int | None:
        """Of this layer."""
        return self.layer.window

    @property
    def scoring(self) -> Scoring:
        """By the model's multiplier and cap, if it has them."""
        return Scoring(self.config.attention_multiplier, self.config.attn_logit_softcapping)

    @property
    def heads(self) -> Heads:
        """Fewer of the keys than of the queries, in most models."""
        c = self.config
        return Heads(c.num_attention_heads, c.num_key_value_heads, c.head_dim)

    def linear(self, name: str, features: int) -> Linear:
        """With biases, if the model has them."""
        bias = self.config.out_bias if name == "o_proj" else self.config.qkv_bias
        return Linear(features, use_bias=bias, dtype=self.dtype, name=name)

    def prepare(
        self, query: Array, key: Array, asking: Int[Array, "k queries"], places: Places
    ) -> tuple[Array, Array]:
        """Normed if the model norms them, then turned by their positions."""
        c, how = self.config, self.layer.rotary
        if c.qk_norm:
            query, key = self.normed(query, "q_norm"), self.normed(key, "k_norm")
        if how is None:
            return query, key
        frequencies = rotary_frequencies(c.turning or c.head_dim, how.theta, how.scaling)
        turn = partial(rotary, frequencies=frequencies, magnitude=magnitude(how.scaling))
        return turn(query, asking), turn(key, places.positions)

    def normed(
        self, x: Float[Array, "k length heads d"], name: str
    ) -> Float[Array, "k length heads d"]:
        """Each head's features, or those of all heads together."""
        c = self.config
        norm = RMSNorm(c.rms_norm_eps, c.norm_offset, name=name)
        if c.qk_norm == "head":
            return norm(x)
        return norm(x.reshape(*x.shape[:2], -1)).reshape(x.shape)


class Block(CausalBlock):
    """One layer; its MLP is down(act(gate x) * up x)."""

    config: LlamaConfig

    attention = Attention

    @property
    def names(self) -> Names:
        """Norms where the model has them."""
        return self.config.names

    @property
    def residual(self) -> float:
        """The model's multiplier."""
        return self.config.residual_multiplier

    def norm(self, name: str) -> RMSNorm:
        """Without a bias."""
        return RMSNorm(self.config.rms_norm_eps, self.config.norm_offset, name=name)

    def mlp(self) -> MLP:
        """Gated."""
        c, names = self.config, ("gate_proj", "up_proj", "down_proj")
        inner = c.intermediate_size
        return MLP(inner, c.hidden_act, self.dtype, names, bias=c.mlp_bias, name="mlp")


class Llama(CausalModel):
    """The model, or stages of it. Stages: embed, layers_0, ..., head."""

    config: LlamaConfig

    block_name = "layers"
    block_type = Block

    @property
    def sizes(self) -> Sizes:
        """Of the whole model; it has no table of positions."""
        c = self.config
        return Sizes(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.longest)

    def layer(self, number: int) -> Layer:
        """How far it sees, and how it rotates."""
        return Layer(self.config.window(number), self.config.rotary(number))

    def embed(
        self,
        embedding: Float[Array, "vocabulary d"],
        tokens: Int[Array, "k length"],
        positions: Int[Array, "k length"],
    ) -> Float[Array, "k length d"]:
        """A row of the embedding for each token, times the model's multiplier."""
        x, by = super().embed(embedding, tokens, positions), self.config.embedding_multiplier
        return x if by == 1 else x * jnp.asarray(by, x.dtype)

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """Tied to the embedding, or by a table of its own."""
        c = self.config
        norm = partial(RMSNorm, c.rms_norm_eps, c.norm_offset, name="norm")
        logits = Head(norm, c.tie_word_embeddings, name="head")(x, embedding)
        return capped(logits / c.logits_scaling, c.final_logit_softcapping)


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
    block = expect_linear("self_attn.o_proj", (heads, d), bias=c.out_bias)
    block |= expect_linear("mlp.down_proj", (f, d), bias=c.mlp_bias)
    asks = {f"self_attn.{n}_proj": (d, wide) for n, wide in (("q", heads), ("k", kv), ("v", kv))}
    for fused, parts, bias in (
        ("self_attn.qkv_proj", asks, c.qkv_bias),
        ("mlp.gate_up_proj", {f"mlp.{name}_proj": (d, f) for name in ("gate", "up")}, c.mlp_bias),
    ):
        if c.fused:
            block |= expect_fused(fused, parts)
            continue
        for name, shape in parts.items():
            block |= expect_linear(name, shape, bias=bias)
    norms = {name: d for name in c.names[1:] if name is not None}
    if c.qk_norm:
        each = c.qk_norm == "head"
        norms |= {"self_attn.q_norm": hd if each else heads}
        norms |= {"self_attn.k_norm": hd if each else kv}
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


def family(kind: type[LlamaConfig]) -> Family:
    """The model with dimensions of this kind."""
    made: Any = (kind.from_hf, Llama, expected_weights, default_sites, PARTITION, SPARE, COPIES)
    return Family(*made)


FAMILY = family(LlamaConfig)
KIN = {
    "granite": family(llama_config.GraniteConfig),
    "ministral": family(llama_config.MinistralConfig),
    "mistral": family(llama_config.MistralConfig),
    "olmo2": family(llama_config.Olmo2Config),
    "qwen2": family(llama_config.Qwen2Config),
    "qwen3": family(llama_config.Qwen3Config),
    "seed_oss": family(llama_config.SeedOssConfig),
    "smollm3": family(llama_config.SmolLM3Config),
}
"""Hugging Face's `model_type` -> the family, of those that differ by their dimensions alone."""
