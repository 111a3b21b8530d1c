"""GPT-NeoX and Pythia: attention and MLP side by side, each on a norm of its own.

Black et al. 2022 (arXiv 2204.06745), Biderman et al. 2023 (arXiv 2304.01373). One layer makes
queries, keys and values, head by head; in each head only the first features turn with the position.
Module names follow Hugging Face's `GPTNeoXForCausalLM`.

    tokens [k, length] -> embed -> layers_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Int

from mend_jax.models import declared
from mend_jax.models.attention import Heads, heads_alike, rotary
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
from mend_jax.models.layers import MLP, Head, Linear, layer_norm, take
from mend_jax.models.one_stack import Places, Sizes
from mend_jax.models.rotary_scaling import (
    Scaling,
    magnitude,
    read_rotary,
    read_share,
    rotary_frequencies,
)
from mend_jax.models.settings import check_heads, settle
from mend_jax.parallel import Partition
from mend_jax.weights import Expected


@dataclass(frozen=True)
class GPTNeoXConfig:
    """The dimensions; field names are those of Hugging Face's config.json.

    turning: features of a head that turn. longest: positions, None for any number of them.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    turning: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: Scaling = ()
    longest: int | None = None
    use_parallel_residual: bool = True
    attention_bias: bool = True
    tie_word_embeddings: bool = False

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "GPTNeoXConfig":
        """Reads a Hugging Face config.json (the names of the tensors are not needed).

        Raises:
          ConfigError: a setting or a rotary scaling that is not implemented.
        """
        del names
        said = settle(config, declared.GPT_NEOX)
        check_heads(said, "hidden_size", "num_attention_heads")
        said |= {"rope_theta": said["rotary_emb_base"]}
        said |= {"partial_rotary_factor": read_share(said, said["rotary_pct"])}
        width = said["hidden_size"] // said["num_attention_heads"]
        turning = int(width * said["partial_rotary_factor"])
        theta, scaling, longest = read_rotary(said, turning)
        own = {"rope_theta": theta, "rope_scaling": scaling, "longest": longest}
        return read_dimensions(cls, said | own, turning=turning)


class Attention(CausalAttention):
    """query_key_value makes all three at once."""

    config: GPTNeoXConfig

    names = ("query_key_value", "query_key_value", "query_key_value", "dense")

    @property
    def heads(self) -> Heads:
        """As wide together as the model."""
        return heads_alike(self.config.num_attention_heads, self.config.hidden_size)

    def linear(self, name: str, features: int) -> Linear:
        """With a bias, in most models."""
        bias = self.config.attention_bias
        return Linear(features, use_bias=bias, dtype=self.dtype, name=name)

    def split(
        self, x: Float[Array, "k length d"], read: Int[Array, "k answers"] | None
    ) -> tuple[Array, Array, Array]:
        """Of each head the thirds of its outputs."""
        fused = self.linear("query_key_value", 3 * self.config.hidden_size)(x)
        each = fused.reshape(*x.shape[:2], self.heads.queries, 3, self.heads.width)
        query, key, value = (each[..., i, :] for i in range(3))
        return take(query, read), key, value

    def prepare(
        self, query: Array, key: Array, asking: Int[Array, "k queries"], places: Places
    ) -> tuple[Array, Array]:
        """The first features turned by their positions."""
        c = self.config
        frequencies = rotary_frequencies(c.turning, c.rope_theta, c.rope_scaling)
        turn = partial(rotary, frequencies=frequencies, magnitude=magnitude(c.rope_scaling))
        return turn(query, asking), turn(key, places.positions)


class Block(CausalBlock):
    """x + attention(norm x) + mlp(other norm of x); or one after the other."""

    config: GPTNeoXConfig

    attention = Attention

    @property
    def names(self) -> Names:
        """Theirs."""
        return Names("attention", "input_layernorm", None, "post_attention_layernorm")

    def norm(self, name: str) -> nn.Module:
        """LayerNorm."""
        return layer_norm(self.config.layer_norm_eps, self.dtype, name)

    def mlp(self) -> MLP:
        """With biases."""
        c, names = self.config, ("dense_h_to_4h", "dense_4h_to_h")
        return MLP(c.intermediate_size, c.hidden_act, self.dtype, names, name="mlp")

    @nn.compact
    def __call__(
        self, x: Float[Array, "k length d"], places: Places
    ) -> Float[Array, "k queries d"]:
        attended = self.attend(self.normed(x, self.names.before_attention), places)
        x = take(x, places.read)
        asked = x if self.config.use_parallel_residual else x + attended
        return x + attended + self.mlp()(self.normed(asked, self.names.before_mlp))


class GPTNeoX(CausalModel):
    """The model, or stages of it. Stages: embed, layers_0, ..., head."""

    config: GPTNeoXConfig

    block_name = "layers"
    block_type = Block

    @property
    def sizes(self) -> Sizes:
        """Of the whole model; it has no table of positions."""
        c = self.config
        return Sizes(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.longest)

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """By a table of its own, in most models."""
        c = self.config
        norm = partial(layer_norm, c.layer_norm_eps, self.dtype, "final_layer_norm")
        return Head(norm, c.tie_word_embeddings, name="head")(x, embedding)


def default_sites(config: GPTNeoXConfig) -> str:
    """MLPs of the last three blocks."""
    blocks = last_blocks(config.num_hidden_layers, 3)
    return rf"layers_({blocks})/mlp/(dense_h_to_4h|dense_4h_to_h)"


def expected_weights(config: GPTNeoXConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    c = config
    d, inner = c.hidden_size, c.intermediate_size
    block = expect_linear("attention.query_key_value", (d, 3 * d), bias=c.attention_bias)
    block |= expect_linear("attention.dense", (d, d), bias=c.attention_bias)
    block |= expect_linear("mlp.dense_h_to_4h", (d, inner))
    block |= expect_linear("mlp.dense_4h_to_h", (inner, d))
    block |= expect_norm("input_layernorm", d) | expect_norm("post_attention_layernorm", d)
    table = expect_table("gpt_neox.embed_in", (c.vocab_size, d), "embedding")
    if not c.tie_word_embeddings:
        table |= expect_table("lm_head", (c.vocab_size, d), "head/embedding")
    table |= expect_blocks(c.num_hidden_layers, "gpt_neox.layers", "layers", block)
    return table | expect_norm("gpt_neox.final_layer_norm", d, "head/final_layer_norm")


PARTITION: Partition = (
    (r"(head/)?embedding", ("model", None)),
    *features_apart("query_key_value|dense_h_to_4h", "dense|dense_4h_to_h"),
)

SPARE = {
    r"(gpt_neox\.)?layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)": (
        "the causal mask, and angles, which are made anew"
    )
}
COPIES = {
    "lm_head.weight": "gpt_neox.embed_in.weight",
    "embed_out.weight": "gpt_neox.embed_in.weight",
}

FAMILY = Family(
    GPTNeoXConfig.from_hf, GPTNeoX, expected_weights, default_sites, PARTITION, SPARE, COPIES
)
