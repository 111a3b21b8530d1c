"""T5: 1.0 (ReLU, tied head) and 1.1 (gated GELU, head of its own), and all that was made of them.

Raffel et al. 2020 (arXiv 1910.10683); google/t5-*-ssm-nq, t5-*-lm-adapt and flan-t5-* are of these
two kinds, mT5 and umT5 of the second. Relative position biases (one table a stack; in umT5 one a
block), RMS norm, no biases, no 1/sqrt(d).

    x [k, length] -> embed -> encoder/block_0 ... -> x: encoder states [k, length, d]
    target [k, answers] -> decoder/block_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models.attention import Heads, Scoring
from mend_jax.models.family import (
    Family,
    expect_blocks,
    expect_linear,
    expect_norm,
    expect_table,
    features_apart,
    last_blocks,
)
from mend_jax.models.layers import MLP, Head, Linear, RMSNorm
from mend_jax.models.relative_positions import relative_bucket
from mend_jax.models.seq2seq import EncoderDecoder, Sizes
from mend_jax.models.stack import Stack, StackAttention, StackBlock
from mend_jax.models.t5_config import MT5Config, T5Config, UMT5Config
from mend_jax.parallel import Partition
from mend_jax.weights import Expected


class Attention(StackAttention):
    """No biases, no scaling: queries begin so much smaller instead."""

    config: T5Config

    names = ("q", "k", "v", "o")

    @property
    def scoring(self) -> Scoring:
        """As they are."""
        return Scoring(scale=1.0)

    @property
    def heads(self) -> Heads:
        """All are alike, and together not as wide as the model."""
        c = self.config
        return Heads(c.num_heads, c.num_heads, c.d_kv)

    def linear(self, name: str, features: int) -> Linear:
        """Drawn as T5 draws them."""
        c = self.config
        if name == "o":
            return Linear(features, use_bias=False, dtype=self.dtype, name=name)
        spread = (c.d_model * c.d_kv if name == "q" else c.d_model) ** -0.5
        init = nn.initializers.normal(spread)
        return Linear(features, use_bias=False, dtype=self.dtype, kernel_init=init, name=name)


def _mlp_names(config: T5Config) -> tuple[str, ...]:
    return ("wi_0", "wi_1", "wo") if config.gated else ("wi", "wo")


class Block(StackBlock):
    """One layer, its parts normed before."""

    config: T5Config

    attention = Attention

    def add(
        self, x: Float[Array, "k length d"], part: Callable[[Array], Array], name: str
    ) -> Float[Array, "k length d"]:
        """x + part(norm x)."""
        return x + part(RMSNorm(self.config.layer_norm_epsilon, name=f"{name}_norm")(x))

    def mlp(self) -> MLP:
        """wo(act(wi x)), or gated: wo(act(wi_0 x) * wi_1 x)."""
        c = self.config
        return MLP(c.d_ff, c.activation, self.dtype, _mlp_names(c), bias=False, name="mlp")


_BIAS = "relative_attention_bias"


class T5Stack(Stack):
    """One table of position biases for all blocks, or one for each; the last norm belongs to the
    last of them."""

    config: T5Config

    block_type = Block

    def biases(
        self, asking: Int[Array, "k length"], keys: Int[Array, "1 keys"]
    ) -> list[Float[Array, "k heads length keys"]]:
        """Of each head, by how far the key stands from the query."""
        c, blocks = self.config, range(self.start, self.stop)
        buckets, farthest = c.relative_attention_num_buckets, c.relative_attention_max_distance
        init = nn.initializers.normal(c.d_model**-0.5)
        distance = keys[:, None, :] - asking[:, :, None]
        bucket = relative_bucket(distance, not self.causal, buckets, farthest)

        def read(name: str) -> Float[Array, "k heads length keys"]:
            table = self.param(name, init, (buckets, c.num_heads))
            return jnp.moveaxis(table[bucket].astype(jnp.float32), -1, 1)

        if c.tables:
            return [read(f"{_BIAS}_{i}") for i in blocks]
        return [read(_BIAS)] * len(blocks)

    def finish(self, x: Float[Array, "k length d"]) -> Float[Array, "k length d"]:
        """Normed, if these were the last blocks."""
        c = self.config
        if self.stop < (c.num_decoder_layers if self.causal else c.num_layers):
            return x
        return RMSNorm(c.layer_norm_epsilon, name="final_layer_norm")(x)


class T5(EncoderDecoder):
    """The model, or stages of it."""

    config: T5Config

    spread = 0.05
    stack_type = T5Stack

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.d_model, c.num_layers, c.num_decoder_layers)

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """Tied to the embedding (scaled by 1/sqrt(d) in T5 1.0), or by a table of its own."""
        c = self.config
        if c.scale_decoder_outputs:
            x = x * c.d_model**-0.5
        return Head(tied=c.tied, spread=c.d_model**-0.5, name="head")(x, embedding)


def default_sites(config: T5Config) -> str:
    """MLPs of the last two encoder and decoder blocks, wi_1 left out (the paper's choice)."""
    encoder = last_blocks(config.num_layers, 2)
    decoder = last_blocks(config.num_decoder_layers, 2)
    return rf"(encoder/block_({encoder})|decoder/block_({decoder}))/mlp/(wi|wi_0|wo)"


def expected_weights(config: T5Config) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    c = config
    d, inner = c.d_model, c.num_heads * c.d_kv
    attend = {"q": (d, inner), "k": (d, inner), "v": (d, inner), "o": (inner, d)}
    *wide, narrow = _mlp_names(c)
    selves = ("SelfAttention", "attention", attend)
    across = ("EncDecAttention", "cross_attention", attend)
    feed = ("DenseReluDense", "mlp", {name: (d, c.d_ff) for name in wide} | {narrow: (c.d_ff, d)})
    layers_of = {"encoder": (selves, feed), "decoder": (selves, across, feed)}
    blocks_of = {"encoder": c.num_layers, "decoder": c.num_decoder_layers}

    table = expect_table("shared", (c.vocab_size, d), "embedding")
    if not c.tied:
        table |= expect_table("lm_head", (c.vocab_size, d), "head/embedding")
    for stack, layers in layers_of.items():
        block: dict[str, Expected] = {}
        for i, (theirs, ours, kernels) in enumerate(layers):
            for name, shape in kernels.items():
                block |= expect_linear(
                    f"layer.{i}.{theirs}.{name}", shape, f"{ours}/{name}", bias=False
                )
            block |= expect_norm(f"layer.{i}.layer_norm", d, f"{ours}_norm", bias=False)
        table |= expect_blocks(blocks_of[stack], f"{stack}.block", f"{stack}/block", block)
        shape = (c.relative_attention_num_buckets, c.num_heads)
        for i in range(blocks_of[stack] if c.tables else 1):
            theirs = f"{stack}.block.{i}.layer.0.SelfAttention.{_BIAS}"
            table |= expect_table(theirs, shape, f"{stack}/{_BIAS}{f'_{i}' * c.tables}")
        table |= expect_norm(f"{stack}.final_layer_norm", d, bias=False)
    return table


PARTITION: Partition = (
    (r"(head/)?embedding", ("model", None)),
    *features_apart("q|k|v|wi|wi_0|wi_1", "o|wo"),
)

SPARE = {
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight": (
        "of the first T5 files, used by no model"
    )
}
COPIES = {
    "encoder.embed_tokens.weight": "shared.weight",
    "decoder.embed_tokens.weight": "shared.weight",
}

FAMILY = Family(T5Config.from_hf, T5, expected_weights, default_sites, PARTITION, SPARE, COPIES)
MT5 = FAMILY._replace(dimensions=MT5Config.from_hf)
UMT5 = FAMILY._replace(dimensions=UMT5Config.from_hf)
