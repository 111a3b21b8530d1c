"""BART: an encoder-decoder with learned positions and norms after each sum.

Lewis et al. 2019 (arXiv 1910.13461); facebook/bart-base, bart-large and what was made of them.
Biases everywhere, embeddings normed in both stacks, and a tied head with one more bias.

    x [k, length] -> embed -> encoder/block_0 ... -> x: encoder states [k, length, d]
    target [k, answers] -> decoder/block_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Int

from mend_jax.models import declared
from mend_jax.models.attention import Heads, heads_alike
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
from mend_jax.models.layers import (
    EMBEDDING_INIT,
    MLP,
    check_positions,
    embedded,
    layer_norm,
    logits_against,
)
from mend_jax.models.seq2seq import EncoderDecoder, Sizes
from mend_jax.models.settings import check_heads, check_token_ids, settle
from mend_jax.models.stack import Stack, StackAttention, StackBlock
from mend_jax.parallel import Partition
from mend_jax.weights import Expected

_OFFSET = 2
"""Row of the position table that belongs to position 0 (fairseq kept two rows for padding)."""


@dataclass(frozen=True)
class BartConfig:
    """The dimensions; field names are those of Hugging Face's config.json.

    logits_bias: whether there is a tensor `final_logits_bias` (a bare BartModel has none).
    forced_bos_token_id, forced_eos_token_id: what `generate` says first and last, whatever the
    logits (None: what they say).
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
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = 2

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "BartConfig":
        """Reads a Hugging Face config.json; `names` are the tensors that there are.

        Raises:
          ConfigError: a setting that is not implemented.
        """
        said = settle(config, declared.BART)
        check_heads(said, "d_model", "encoder_attention_heads")
        check_heads(said, "d_model", "decoder_attention_heads")
        check_token_ids(said, *_TOKENS)
        return read_dimensions(
            cls, said, logits_bias=not names or "final_logits_bias" in names
        )


_TOKENS = (
    "decoder_start_token_id",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
)


class Attention(StackAttention):
    """With biases, and heads of its stack's own number."""

    config: BartConfig

    @property
    def heads(self) -> Heads:
        """All of one stack are alike."""
        c = self.config
        heads = c.decoder_attention_heads if self.causal else c.encoder_attention_heads
        return heads_alike(heads, c.d_model)


_EPSILON = 1e-5


class Block(StackBlock):
    """One layer, its sums normed."""

    config: BartConfig

    attention = Attention

    def add(
        self, x: Float[Array, "k length d"], part: Callable[[Array], Array], name: str
    ) -> Float[Array, "k length d"]:
        """norm(x + part(x))."""
        return layer_norm(_EPSILON, self.dtype, f"{name}_norm")(x + part(x))

    def mlp(self) -> MLP:
        """fc2(act(fc1 x))."""
        c = self.config
        inner = c.decoder_ffn_dim if self.causal else c.encoder_ffn_dim
        return MLP(inner, c.activation_function, self.dtype, ("fc1", "fc2"), name="mlp")


class BartStack(Stack):
    """With positions of its own."""

    config: BartConfig

    block_type = Block

    def embed(
        self,
        embedding: Float[Array, "vocabulary d"],
        tokens: Int[Array, "k length"],
        positions: Int[Array, "k length"],
    ) -> Float[Array, "k length d"]:
        """Token and position, added and normed.

        Raises:
          ValueError: more positions than the model has.
        """
        c = self.config
        check_positions(max(tokens.shape[1], self.cache_length), c.max_position_embeddings)
        rows = (c.max_position_embeddings + _OFFSET, c.d_model)
        table = self.param("position_embedding", EMBEDDING_INIT, rows)
        scale = c.d_model**0.5 if c.scale_embedding else 1.0
        x = embedded(embedding, tokens) * scale + table[positions + _OFFSET]
        x = x.astype(self.dtype)
        return layer_norm(_EPSILON, self.dtype, "embedding_norm")(x)


class Head(nn.Module):
    """Logits in float32 against the embedding, plus a bias."""

    config: BartConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        if not self.config.logits_bias:
            return logits_against(x, embedding)
        shape = (1, self.config.vocab_size)  # as it is stored
        bias = self.param("bias", nn.initializers.zeros, shape)
        return logits_against(x, embedding, bias[0])


class Bart(EncoderDecoder):
    """The model, or stages of it."""

    config: BartConfig

    stack_type = BartStack

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.d_model, c.encoder_layers, c.decoder_layers)

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """Tied to the embedding, with a bias."""
        return Head(self.config, name="head")(x, embedding)


def default_sites(config: BartConfig) -> str:
    """MLPs of the last two encoder and decoder blocks (the paper's choice; on a small real BART no
    other place was better, results/sites_bart)."""
    encoder = last_blocks(config.encoder_layers, 2)
    decoder = last_blocks(config.decoder_layers, 2)
    return rf"(encoder/block_({encoder})|decoder/block_({decoder}))/mlp/fc[12]"


def expected_weights(config: BartConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    c = config
    d = c.d_model
    table = expect_table("model.shared", (c.vocab_size, d), "embedding")
    if c.logits_bias:
        table["final_logits_bias"] = Expected(("head", "bias"), (1, c.vocab_size), False)
    selves, across = ("self_attn", "attention"), ("encoder_attn", "cross_attention")
    for stack, blocks, inner, attentions in (
        ("encoder", c.encoder_layers, c.encoder_ffn_dim, (selves,)),
        ("decoder", c.decoder_layers, c.decoder_ffn_dim, (selves, across)),
    ):
        block = expect_linear("fc1", (d, inner), "mlp/fc1")
        block |= expect_linear("fc2", (inner, d), "mlp/fc2")
        block |= expect_norm("final_layer_norm", d, "mlp_norm")
        for theirs, ours in attentions:
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                block |= expect_linear(f"{theirs}.{name}", (d, d), f"{ours}/{name}")
            block |= expect_norm(f"{theirs}_layer_norm", d, f"{ours}_norm")
        table |= expect_blocks(blocks, f"model.{stack}.layers", f"{stack}/block", block)
        rows = (c.max_position_embeddings + _OFFSET, d)
        table |= expect_table(f"model.{stack}.embed_positions", rows, f"{stack}/position_embedding")
        table |= expect_norm(f"model.{stack}.layernorm_embedding", d, f"{stack}/embedding_norm")
    return table


PARTITION: Partition = (
    (r"embedding", (None, "model")),
    *features_apart("q_proj|k_proj|v_proj|fc1", "out_proj|fc2", biases=True),
)
"""The vocabulary has 50,265 tokens, which no even number of devices divides, so the embedding is
spread by its features."""

SPARE = {r"(model\.)?(encoder|decoder)\.version": "of the file's form"}
COPIES = {
    "lm_head.weight": "model.shared.weight",
    "model.encoder.embed_tokens.weight": "model.shared.weight",
    "model.decoder.embed_tokens.weight": "model.shared.weight",
}

FAMILY = Family(BartConfig.from_hf, Bart, expected_weights, default_sites, PARTITION, SPARE, COPIES)
