"""BERT: an encoder that reads a whole text at once, to judge it or to fill its gaps.

Devlin et al. 2018 (arXiv 1810.04805). Learned positions, norms after each sum. What it answers is
its task, told from the tensors that there are:

    tokens [k, length] -> embed -> block_0 ... -> head -> logits [k, answers, classes]

    classification   answers = 1: the classes of the text, read at its first token
    masked_lm        the vocabulary, at each position of `read`
    features         no logits: the hidden states [k, answers, d] at each position of `read`

A classifier with ONE logit z (the paper's, on FEVER) answers the two logits [0, z]: their softmax
is sigmoid(z), so cross-entropy, KL and argmax are those of a Bernoulli variable with logit z.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models import declared
from mend_jax.models.attention import Heads, heads_alike
from mend_jax.models.encoder import EncoderAttention, EncoderBlock
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
    ACTIVATIONS,
    EMBEDDING_INIT,
    MLP,
    Linear,
    embedded,
    layer_norm,
    logits_against,
)
from mend_jax.models.one_stack import OneStack, Places, Sizes
from mend_jax.models.settings import check_heads, require, settle
from mend_jax.models.stages import Inputs
from mend_jax.parallel import Partition
from mend_jax.weights import Expected

_KINDS = {"classification": "classifier", "masked_lm": "masked", "features": "features"}

_TASKS = {
    "BertForSequenceClassification": "classification",
    "BertForMaskedLM": "masked_lm",
    "BertForPreTraining": "masked_lm",
    "BertModel": "features",
}


@dataclass(frozen=True)
class BertConfig:
    """The dimensions; field names are those of Hugging Face's config.json.

    task: "classification", "masked_lm" or "features". num_labels: logits of the classifier.
    labels: the names of the classes (of one logit: of its two outcomes, the negative one first).
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    task: str = "features"
    num_labels: int = 0
    labels: tuple[str, ...] = ()

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "BertConfig":
        """Reads a Hugging Face config.json; `names` are the tensors that there are.

        `architectures` says what the task is; where it is absent, the names do.

        Raises:
          ConfigError: a setting that is not implemented; names of another number of classes.
        """
        said = settle(config, declared.BERT)
        check_heads(said, "hidden_size", "num_attention_heads")
        task = _task(config.get("architectures") or (), names)
        num_labels, labels = _labels(said) if task == "classification" else (0, ())
        return read_dimensions(cls, said, task=task, num_labels=num_labels, labels=labels)


def _task(architectures: Sequence[str], names: Collection[str]) -> str:
    """What the architecture is for; where none is named, what the tensors are for."""
    if architectures:
        return _TASKS[architectures[0]]
    if "classifier.weight" in names:
        return "classification"
    return "masked_lm" if "cls.predictions.bias" in names else "features"


def _labels(said: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Logits of the classifier, and the names of its classes."""
    names = said["id2label"] or {}
    require(
        all(str(i).isdecimal() and isinstance(name, str) for i, name in names.items()),
        f"id2label = {names!r} is not supported (numbers of classes and their names are)",
    )
    labels = tuple(name for _, name in sorted((int(i), name) for i, name in names.items()))
    count = said["num_labels"] or len(labels) or 2
    if count == 1:
        return 1, labels if len(labels) == 2 else ("REFUTES", "SUPPORTS")
    labels = labels or tuple(f"LABEL_{i}" for i in range(count))
    require(
        len(labels) == count,
        f"num_labels = {count} classes, but id2label names {', '.join(labels)}",
    )
    return count, labels


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
            x = layer_norm(c.layer_norm_eps, self.dtype, "norm")(ACTIVATIONS[c.hidden_act](x))
            bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
            return logits_against(x, embedding, bias)
        x = nn.tanh(Linear(c.hidden_size, dtype=self.dtype, name="pooler")(x))
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
        return Sizes(c.vocab_size, c.hidden_size, c.num_hidden_layers, c.max_position_embeddings)

    def example_inputs(self) -> Inputs:
        """One token."""
        return super().example_inputs()._replace(mask=jnp.ones((1, 1), bool))

    def places(self, inputs: Inputs) -> Places:
        """A classifier is read at the first token."""
        places = super().places(inputs)
        if self.config.task == "classification":
            places = places._replace(read=jnp.zeros((inputs.x.shape[0], 1), jnp.int32))
        return places

    def embed(
        self,
        embedding: Float[Array, "vocabulary d"],
        tokens: Int[Array, "k length"],
        positions: Int[Array, "k length"],
    ) -> Float[Array, "k length d"]:
        """Token, position and the first token type, added and normed."""
        c = self.config
        rows = (c.max_position_embeddings, c.hidden_size)
        table = self.param("position_embedding", EMBEDDING_INIT, rows)
        types = self.param("type_embedding", EMBEDDING_INIT, (c.type_vocab_size, c.hidden_size))
        x = embedded(embedding, tokens) + table[positions]
        x = (x + jnp.broadcast_to(types[0], x.shape)).astype(self.dtype)
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
    c = config
    d, inner = c.hidden_size, c.intermediate_size
    block = expect_linear("attention.output.dense", (d, d), "attention/output")
    for name in ("query", "key", "value"):
        block |= expect_linear(f"attention.self.{name}", (d, d), f"attention/{name}")
    block |= expect_norm("attention.output.LayerNorm", d, "attention_norm")
    block |= expect_linear("intermediate.dense", (d, inner), "mlp/intermediate")
    block |= expect_linear("output.dense", (inner, d), "mlp/output")
    block |= expect_norm("output.LayerNorm", d, "mlp_norm")

    table = expect_norm("bert.embeddings.LayerNorm", d, "embedding_norm")
    for theirs, ours, rows in (
        ("word_embeddings", "embedding", c.vocab_size),
        ("position_embeddings", "position_embedding", c.max_position_embeddings),
        ("token_type_embeddings", "type_embedding", c.type_vocab_size),
    ):
        table |= expect_table(f"bert.embeddings.{theirs}", (rows, d), ours)
    table |= expect_blocks(c.num_hidden_layers, "bert.encoder.layer", "block", block)
    if c.task == "classification":
        table |= expect_linear("bert.pooler.dense", (d, d), "head/pooler")
        table |= expect_linear("classifier", (d, c.num_labels), "head/classifier")
    if c.task == "masked_lm":
        theirs = "cls.predictions.transform"
        table |= expect_linear(f"{theirs}.dense", (d, d), "head/transform")
        table |= expect_norm(f"{theirs}.LayerNorm", d, "head/norm")
        table["cls.predictions.bias"] = Expected(("head", "bias"), (c.vocab_size,), False)
    return table


PARTITION: Partition = (
    (r"embedding", (None, "model")),
    *features_apart("query|key|value|intermediate", "output", biases=True),
)
"""The vocabulary, 30,522 tokens, does not divide by four, so the embedding is spread by its
features."""

SPARE = {
    r"(bert\.)?embeddings\.position_ids": "0, 1, 2, ...",
    r"(bert\.)?pooler\.dense\.(weight|bias)": "of classifiers, which have a place for it",
    r"cls\.seq_relationship\.(weight|bias)": "of a task that only pre-training has",
}
COPIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}

FAMILY = Family(BertConfig.from_hf, Bert, expected_weights, default_sites, PARTITION, SPARE, COPIES)
