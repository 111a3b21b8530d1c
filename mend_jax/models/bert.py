"""BERT and its kin: an encoder that reads a whole text at once, to judge it or to fill its gaps.

Devlin et al. 2018 (arXiv 1810.04805); its kin are in `bert_config.py`. Learned positions, norms
after each sum. What it answers is its task, told from the tensors that there are:

    tokens [k, length] -> embed -> block_0 ... -> head -> logits [k, answers, classes]

    classification   answers = 1: the classes of the text, read at its first token
    masked_lm        the vocabulary, at each position of `read`
    features         no logits: the hidden states [k, answers, d] at each position of `read`

A classifier with ONE logit z (the paper's, on FEVER) answers the two logits [0, z]: their softmax
is sigmoid(z), so cross-entropy, KL and argmax are those of a Bernoulli variable with logit z.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models.attention import Heads, heads_alike
from mend_jax.models.bert_config import (
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)
from mend_jax.models.encoder import EncoderAttention, EncoderBlock
from mend_jax.models.family import (
    Family,
    expect_blocks,
    expect_linear,
    expect_norm,
    expect_table,
    features_apart,
    last_blocks,
)
from mend_jax.models.layers import (
    ACTIVATIONS,
    EMBEDDING_INIT,
    MLP,
    Linear,
    embedded,
    layer_norm,
    logits_against,
)
from mend_jax.models.one_stack import OneStack, Places, Sizes
from mend_jax.models.stages import Inputs, Seen, tell_of_all
from mend_jax.parallel import Partition
from mend_jax.weights import Expected

_KINDS = {"classification": "classifier", "masked_lm": "masked", "features": "features"}


class Attention(EncoderAttention):
    """With biases."""

    config: BertConfig

    names = ("query", "key", "value", "output")

    @property
    def heads(self) -> Heads:
        """As wide together as the model."""
        return heads_alike(self.config.num_attention_heads, self.config.hidden_size)


class Block(EncoderBlock):
    """One layer."""

    config: BertConfig

    attention = Attention

    def norm(self, name: str) -> nn.Module:
        """LayerNorm."""
        return layer_norm(self.config.layer_norm_eps, self.dtype, name)

    def mlp(self) -> MLP:
        """output(act(intermediate x))."""
        c, names = self.config, ("intermediate", "output")
        return MLP(c.intermediate_size, c.hidden_act, self.dtype, names, name="mlp")


class Head(nn.Module):
    """What the task makes of the last states, in float32."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers classes"]:
        c = self.config
        if c.task == "features":
            return x.astype(jnp.float32)
        if c.task == "masked_lm":
            x = Linear(c.hidden_size, dtype=self.dtype, name="transform")(x)
            act = ACTIVATIONS[c.transforming or c.hidden_act]
            x = layer_norm(c.layer_norm_eps, self.dtype, "norm")(act(x))
            bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
            return logits_against(x, embedding, bias)
        x = ACTIVATIONS[c.pooling](Linear(c.hidden_size, dtype=self.dtype, name="pooler")(x))
        logits = Linear(c.num_labels, dtype=jnp.float32, name="classifier")(x)
        return jnp.pad(logits, ((0, 0), (0, 0), (1, 0))) if c.num_labels == 1 else logits


class Bert(OneStack):
    """The model, or stages of it. Stages: embed, block_0, ..., head."""

    config: BertConfig

    @property
    def kind(self) -> str:
        """classifier, masked or features."""
        return _KINDS[self.config.task]

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        positions = c.max_position_embeddings - (0 if c.padding is None else c.padding + 1)
        return Sizes(c.vocab_size, c.hidden_size, c.num_hidden_layers, positions)

    def example_inputs(self) -> Inputs:
        """One token."""
        return super().example_inputs()._replace(mask=jnp.ones((1, 1), bool))

    def places(self, inputs: Inputs) -> Places:
        """A classifier is read at the first token. Padding may have no position of its own."""
        places, padding = super().places(inputs), self.config.padding
        if padding is not None and inputs.positions is None and self.start == 0:
            real = (inputs.x != padding).astype(jnp.int32)
            places = places._replace(positions=jnp.cumsum(real, axis=1) * real + padding)
        if self.config.task == "classification":
            places = places._replace(read=jnp.zeros((inputs.x.shape[0], 1), jnp.int32))
        return places

    def watch(self, seen: Seen, places: Places) -> None:
        """Every position has read the whole text."""
        del places
        tell_of_all(seen)

    def embed(
        self,
        embedding: Float[Array, "vocabulary d"],
        tokens: Int[Array, "k length"],
        positions: Int[Array, "k length"],
    ) -> Float[Array, "k length d"]:
        """Token, position and the first token type (if there are types), added and normed."""
        c = self.config
        rows = (c.max_position_embeddings, c.hidden_size)
        table = self.param("position_embedding", EMBEDDING_INIT, rows)
        x = embedded(embedding, tokens) + table[positions]
        if c.type_vocab_size:
            shape = (c.type_vocab_size, c.hidden_size)
            types = self.param("type_embedding", EMBEDDING_INIT, shape)
            x = x + jnp.broadcast_to(types[0], x.shape)
        x = x.astype(self.dtype)
        return layer_norm(c.layer_norm_eps, self.dtype, "embedding_norm")(x)

    def block(self, number: int, name: str) -> Block:
        """All are alike."""
        return Block(self.config, self.dtype, name=name)

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers classes"]:
        """By the task."""
        return Head(self.config, self.dtype, name="head")(x, embedding)


def default_sites(config: BertConfig) -> str:
    """MLPs of the last three blocks (the paper's choice)."""
    return rf"block_({last_blocks(config.num_hidden_layers, 3)})/mlp/(intermediate|output)"


def expected_weights(config: BertConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    c, names = config, config.layout
    d, inner = c.hidden_size, c.intermediate_size
    shapes = {"mlp/intermediate": (d, inner), "mlp/output": (inner, d)}
    block: dict[str, Expected] = {}
    for theirs, ours in names.block.items():
        block |= expect_linear(theirs, shapes.get(ours, (d, d)), ours)
    for theirs, ours in names.norms.items():
        block |= expect_norm(theirs, d, ours)

    table = expect_norm(f"{names.prefix}.embeddings.LayerNorm", d, "embedding_norm")
    for theirs, ours, rows in (
        ("word_embeddings", "embedding", c.vocab_size),
        ("position_embeddings", "position_embedding", c.max_position_embeddings),
        ("token_type_embeddings", "type_embedding", c.type_vocab_size),
    ):
        if rows:
            table |= expect_table(f"{names.prefix}.embeddings.{theirs}", (rows, d), ours)
    table |= expect_blocks(c.num_hidden_layers, f"{names.prefix}.{names.layers}", "block", block)
    if c.task == "classification":
        table |= expect_linear(names.pooler, (d, d), "head/pooler")
        table |= expect_linear(names.classifier, (d, c.num_labels), "head/classifier")
    if c.task == "masked_lm":
        table |= expect_linear(names.transform, (d, d), "head/transform")
        table |= expect_norm(names.head_norm, d, "head/norm")
        table[names.bias] = Expected(("head", "bias"), (c.vocab_size,), False)
    return table


PARTITION: Partition = (
    (r"embedding", (None, "model")),
    *features_apart("query|key|value|intermediate", "output", biases=True),
)
"""The vocabulary, 30,522 tokens, does not divide by four, so the embedding is spread by its
features."""


def family(kind: type[BertConfig]) -> Family:
    """The model with dimensions of this kind."""
    names = kind.layout
    spare = {
        rf"({names.prefix}\.)?embeddings\.position_ids": "0, 1, 2, ...",
        rf"({names.prefix}\.)?pooler\.dense\.(weight|bias)": (
            "of classifiers, which have a place for it"
        ),
        r"cls\.seq_relationship\.(weight|bias)": "of a task that only pre-training has",
    }
    embedding = f"{names.prefix}.embeddings.word_embeddings.weight"
    copies = {f"{names.output}.weight": embedding, f"{names.output}.bias": names.bias}
    table, sites = expected_weights, default_sites
    return Family(kind.from_hf, Bert, table, sites, PARTITION, spare, copies)


FAMILIES = {
    "bert": family(BertConfig),
    "camembert": family(CamembertConfig),
    "distilbert": family(DistilBertConfig),
    "roberta": family(RobertaConfig),
    "xlm-roberta": family(XLMRobertaConfig),
}
"""Hugging Face's `model_type` -> the family."""
