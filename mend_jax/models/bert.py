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

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mend_jax.models.family import Family, expect_linear, expect_norm, last_blocks
from mend_jax.models.layers import (
    ACTIVATIONS,
    Linear,
    attention,
    checked_activation,
    layer_norm,
    logits_against,
    take,
)
from mend_jax.models.stages import Inputs
from mend_jax.parallel import Partition
from mend_jax.weights import Expected

_KINDS = {"classification": "classifier", "masked_lm": "masked", "features": "features"}

_ARCHITECTURES = {
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

        Without names, `architectures` says what the task is.

        Raises:
          ValueError: a variant that is not implemented; names of another number of classes.
        """
        for key, wanted in _ONLY.items():
            if (given := config.get(key, wanted[0])) not in wanted:
                raise ValueError(
                    f"BERT with {key} {given!r} is not implemented "
                    f"({', '.join(map(repr, wanted))} are)"
                )
        task = _task(config, names)
        num_labels, labels = _labels(config) if task == "classification" else (0, ())
        return cls(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            max_position_embeddings=config.get("max_position_embeddings", 512),
            type_vocab_size=config.get("type_vocab_size", 2),
            hidden_act=checked_activation(config.get("hidden_act", "gelu"), "BERT"),
            layer_norm_eps=config.get("layer_norm_eps", 1e-12),
            task=task,
            num_labels=num_labels,
            labels=labels,
        )


_ONLY: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "tie_word_embeddings": (True,),
    "problem_type": (None, "single_label_classification"),
}


def _task(config: Mapping[str, Any], names: Collection[str]) -> str:
    architecture = (config.get("architectures") or ["BertModel"])[0]
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"{architecture} is not implemented ({', '.join(_ARCHITECTURES)} are)")
    if not names:
        return _ARCHITECTURES[architecture]
    if "classifier.weight" in names:
        return "classification"
    return "masked_lm" if "cls.predictions.bias" in names else "features"


def _labels(config: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Logits of the classifier, and the names of its classes."""
    named = sorted((int(i), name) for i, name in (config.get("id2label") or {}).items())
    labels = tuple(name for _, name in named)
    count = config.get("num_labels") or len(labels) or 2
    if count == 1:
        return 1, labels if len(labels) == 2 else ("REFUTES", "SUPPORTS")
    labels = labels or tuple(f"LABEL_{i}" for i in range(count))
    if len(labels) != count:
        raise ValueError(f"BERT with {count} classes, but id2label names {', '.join(labels)}")
    return count, labels


class Attention(nn.Module):
    """Attention of the positions `read` (None: all) to all that is no padding."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k length d"],
        mask: Bool[Array, "k length"] | None,
        read: Int[Array, "k answers"] | None,
    ) -> Float[Array, "k queries d"]:
        c = self.config

        def project(name: str, x: Array) -> Array:
            y = Linear(c.hidden_size, dtype=self.dtype, name=name)(x)
            return y.reshape(*y.shape[:2], c.num_attention_heads, -1)

        query = project("query", x if read is None else take(x, read))
        seen = None if mask is None else mask[:, None]
        out = attention(query, project("key", x), project("value", x), seen)
        return Linear(c.hidden_size, dtype=self.dtype, name="output")(out)


class MLP(nn.Module):
    """output(act(intermediate x))."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "k length d"]) -> Float[Array, "k length d"]:
        c = self.config
        h = Linear(c.intermediate_size, dtype=self.dtype, name="intermediate")(x)
        return Linear(c.hidden_size, dtype=self.dtype, name="output")(ACTIVATIONS[c.hidden_act](h))


class Block(nn.Module):
    """One layer; with `read`, its output holds only these positions."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k length d"],
        mask: Bool[Array, "k length"] | None,
        read: Int[Array, "k answers"] | None,
    ) -> Float[Array, "k queries d"]:
        c, dtype = self.config, self.dtype
        attended = Attention(c, dtype, name="attention")(x, mask, read)
        x = (x if read is None else take(x, read)) + attended
        x = layer_norm(c.layer_norm_eps, dtype, "attention_norm")(x)
        return layer_norm(c.layer_norm_eps, dtype, "mlp_norm")(x + MLP(c, dtype, name="mlp")(x))


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
            return logits_against(x, embedding) + bias.astype(jnp.float32)
        x = nn.tanh(Linear(c.hidden_size, dtype=self.dtype, name="pooler")(x))
        logits = Linear(c.num_labels, dtype=jnp.float32, name="classifier")(x)
        return jnp.pad(logits, ((0, 0), (0, 0), (1, 0))) if c.num_labels == 1 else logits


class Bert(nn.Module):
    """The model, or the stages of it from `start` up to `stop`."""

    config: BertConfig
    dtype: Any = jnp.float32
    start: int = 0
    stop: int | None = None

    @property
    def kind(self) -> str:
        """classifier, masked or features."""
        return _KINDS[self.config.task]

    @property
    def stages(self) -> tuple[str, ...]:
        """embed, block_0, ..., head."""
        return ("embed", *(f"block_{i}" for i in range(self.config.num_hidden_layers)), "head")

    def example_inputs(self) -> Inputs:
        """One token."""
        return Inputs(jnp.zeros((1, 1), jnp.int32), mask=jnp.ones((1, 1), bool))

    @nn.compact
    def __call__(self, inputs: Inputs) -> Any:
        c = self.config
        last = c.num_hidden_layers  # index of the last block among the stages
        stop = last + 2 if self.stop is None else self.stop
        x: Any = inputs.x
        read = inputs.read
        if c.task == "classification":
            read = jnp.zeros((x.shape[0], 1), jnp.int32)
        init = nn.initializers.normal(0.02)
        embedding = self.param("embedding", init, (c.vocab_size, c.hidden_size))
        for stage in range(self.start, stop):
            if stage == 0:
                x = self._embed(embedding, inputs)
            elif stage <= last:
                block = Block(c, self.dtype, name=f"block_{stage - 1}")
                x = block(x, inputs.mask, read if stage == last else None)
            else:
                x = Head(c, self.dtype, name="head")(x, embedding)
        return x if stop == last + 2 else inputs._replace(x=x)

    def _embed(
        self, embedding: Float[Array, "vocabulary d"], inputs: Inputs
    ) -> Float[Array, "k length d"]:
        """Token, position and the first token type, added and normed.

        Raises:
          ValueError: more tokens than positions.
        """
        c, init = self.config, nn.initializers.normal(0.02)
        length = inputs.x.shape[1]
        if length > c.max_position_embeddings:
            raise ValueError(
                f"{length} tokens are more than the {c.max_position_embeddings} positions of this "
                "BERT"
            )
        table = self.param("position_embedding", init, (c.max_position_embeddings, c.hidden_size))
        types = self.param("type_embedding", init, (c.type_vocab_size, c.hidden_size))
        places = jnp.arange(length) if inputs.positions is None else inputs.positions
        x = (embedding[inputs.x] + table[places] + types[0]).astype(self.dtype)
        return layer_norm(c.layer_norm_eps, self.dtype, "embedding_norm")(x)


def default_sites(config: BertConfig) -> str:
    """MLPs of the last three blocks (the paper's choice)."""
    return rf"block_({last_blocks(config.num_hidden_layers, 3)})/mlp/(intermediate|output)"


def expected_weights(config: BertConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    c = config
    d = c.hidden_size
    table: dict[str, Expected] = {}

    def linear(name: str, path: str, d_in: int, d_out: int) -> None:
        table.update(expect_linear(name, path, (d_in, d_out)))

    def norm(name: str, path: str) -> None:
        table.update(expect_norm(f"{name}.LayerNorm", path, d))

    for theirs, ours, rows in (
        ("word_embeddings", "embedding", c.vocab_size),
        ("position_embeddings", "position_embedding", c.max_position_embeddings),
        ("token_type_embeddings", "type_embedding", c.type_vocab_size),
    ):
        table[f"bert.embeddings.{theirs}.weight"] = Expected((ours,), (rows, d), False)
    norm("bert.embeddings", "embedding_norm")
    for i in range(c.num_hidden_layers):
        layer, block = f"bert.encoder.layer.{i}", f"block_{i}"
        for name in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{name}", f"{block}/attention/{name}", d, d)
        linear(f"{layer}.attention.output.dense", f"{block}/attention/output", d, d)
        norm(f"{layer}.attention.output", f"{block}/attention_norm")
        wide = c.intermediate_size
        linear(f"{layer}.intermediate.dense", f"{block}/mlp/intermediate", d, wide)
        linear(f"{layer}.output.dense", f"{block}/mlp/output", wide, d)
        norm(f"{layer}.output", f"{block}/mlp_norm")
    if c.task == "classification":
        linear("bert.pooler.dense", "head/pooler", d, d)
        linear("classifier", "head/classifier", d, c.num_labels)
    if c.task == "masked_lm":
        linear("cls.predictions.transform.dense", "head/transform", d, d)
        norm("cls.predictions.transform", "head/norm")
        table["cls.predictions.bias"] = Expected(("head", "bias"), (c.vocab_size,), False)
    return table


PARTITION: Partition = (
    (r"embedding", (None, "model")),
    (r".*/(query|key|value|intermediate)/kernel", (None, "model")),
    (r".*/(query|key|value|intermediate)/bias", ("model",)),
    (r".*/output/kernel", ("model", None)),
)
"""Heads and MLP features apart. The vocabulary, 30,522 tokens, does not divide by four, so the
embedding is spread by its features."""

FAMILY = Family(BertConfig.from_hf, Bert, expected_weights, default_sites, PARTITION)
