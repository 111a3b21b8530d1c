"""The dimensions of BERT and its kin, how config.json says them, what files call their tensors."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from mend_jax.models import declared
from mend_jax.models.family import later, read_dimensions
from mend_jax.models.settings import Declared, check_heads, require, settle


class Layout(NamedTuple):
    """What Hugging Face's files call the tensors.

    block: {name of a linear layer of a block: ours}. norms: the same of its norms.
    pooler, classifier: of a classifier; transform, head_norm, bias, output: of a masked LM, whose
      output is the embedding again.
    """

    prefix: str = "bert"
    layers: str = "encoder.layer"
    block: Mapping[str, str] = {
        "attention.self.query": "attention/query",
        "attention.self.key": "attention/key",
        "attention.self.value": "attention/value",
        "attention.output.dense": "attention/output",
        "intermediate.dense": "mlp/intermediate",
        "output.dense": "mlp/output",
    }
    norms: Mapping[str, str] = {
        "attention.output.LayerNorm": "attention_norm",
        "output.LayerNorm": "mlp_norm",
    }
    pooler: str = "bert.pooler.dense"
    classifier: str = "classifier"
    transform: str = "cls.predictions.transform.dense"
    head_norm: str = "cls.predictions.transform.LayerNorm"
    bias: str = "cls.predictions.bias"
    output: str = "cls.predictions.decoder"


ROBERTA = Layout(
    prefix="roberta",
    pooler="classifier.dense",
    classifier="classifier.out_proj",
    transform="lm_head.dense",
    head_norm="lm_head.layer_norm",
    bias="lm_head.bias",
    output="lm_head.decoder",
)
DISTILBERT = Layout(
    prefix="distilbert",
    layers="transformer.layer",
    block={
        "attention.q_lin": "attention/query",
        "attention.k_lin": "attention/key",
        "attention.v_lin": "attention/value",
        "attention.out_lin": "attention/output",
        "ffn.lin1": "mlp/intermediate",
        "ffn.lin2": "mlp/output",
    },
    norms={"sa_layer_norm": "attention_norm", "output_layer_norm": "mlp_norm"},
    pooler="pre_classifier",
    transform="vocab_transform",
    head_norm="vocab_layer_norm",
    bias="vocab_projector.bias",
    output="vocab_projector",
)

_TASKS = {
    "ForSequenceClassification": "classification",
    "ForMaskedLM": "masked_lm",
    "ForPreTraining": "masked_lm",
    "Model": "features",
}
"""What the names of architectures end with."""


@dataclass(frozen=True)
class BertConfig:
    """The dimensions; field names are those of Hugging Face's config.json.

    task: "classification", "masked_lm" or "features". num_labels: logits of the classifier.
    labels: the names of the classes (of one logit: of its two outcomes, the negative one first).
    padding: the token that has no position, after whose number positions begin (None: they begin
      with 0, and all tokens have one).
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
    padding: int | None = later(None)

    declared: ClassVar[Declared] = declared.BERT
    layout: ClassVar[Layout] = Layout()
    keys: ClassVar[Mapping[str, str]] = {}
    """{field: what config.json calls it, if it is another name}."""
    pooling: ClassVar[str] = "tanh"
    transforming: ClassVar[str | None] = None
    """The activations of the two heads; of a masked LM None, its blocks'."""

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "BertConfig":
        """Reads a Hugging Face config.json; `names` are the tensors that there are.

        `architectures` says what the task is; where it is absent, the names do.

        Raises:
          ConfigError: a setting that is not implemented; names of another number of classes.
        """
        said = settle(config, cls.declared)
        width, heads = (cls.keys.get(key, key) for key in ("hidden_size", "num_attention_heads"))
        check_heads(said, width, heads)
        said |= {ours: said[theirs] for ours, theirs in cls.keys.items()}
        task = cls.task_of(config.get("architectures") or (), names)
        num_labels, labels = _labels(said) if task == "classification" else (0, ())
        own = {"task": task, "num_labels": num_labels, "labels": labels}
        return read_dimensions(cls, said | cls.more(said) | own)

    @classmethod
    def more(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """Fields that no key says by itself."""
        return {}

    @classmethod
    def task_of(cls, architectures: Sequence[str], names: Collection[str]) -> str:
        """What the architecture is for; where none is named, what the tensors are for."""
        for ending, task in _TASKS.items():
            if architectures and architectures[0].endswith(ending):
                return task
        if f"{cls.layout.classifier}.weight" in names:
            return "classification"
        return "masked_lm" if cls.layout.bias in names else "features"


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


@dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """RoBERTa (Liu et al. 2019, arXiv 1907.11692): other positions, other heads."""

    declared: ClassVar[Declared] = declared.ROBERTA
    layout: ClassVar[Layout] = ROBERTA
    transforming: ClassVar[str | None] = "gelu"

    @classmethod
    def more(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """Its positions begin after the number of the padding token."""
        padding, rows = said["pad_token_id"], said["max_position_embeddings"]
        require(
            padding + 1 < rows,
            f"pad_token_id = {padding}: no position of max_position_embeddings = {rows} is left",
        )
        return {"padding": padding}


@dataclass(frozen=True)
class XLMRobertaConfig(RobertaConfig):
    """XLM-R (Conneau et al. 2020, arXiv 1911.02116)."""

    declared: ClassVar[Declared] = declared.XLM_ROBERTA


@dataclass(frozen=True)
class CamembertConfig(RobertaConfig):
    """CamemBERT (Martin et al. 2020, arXiv 1911.03894)."""

    declared: ClassVar[Declared] = declared.CAMEMBERT


@dataclass(frozen=True)
class DistilBertConfig(BertConfig):
    """DistilBERT (Sanh et al. 2019, arXiv 1910.01108): no token types."""

    declared: ClassVar[Declared] = declared.DISTILBERT
    layout: ClassVar[Layout] = DISTILBERT
    pooling: ClassVar[str] = "relu"
    keys: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    }

    @classmethod
    def more(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """What its class always does."""
        return {"type_vocab_size": 0, "layer_norm_eps": 1e-12}
