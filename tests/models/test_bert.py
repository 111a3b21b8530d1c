"""BERT in its tasks against Hugging Face's PyTorch modules; and a real one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
import transformers
from compare import assert_close

import mend_jax as mj
from mend_jax.models import bert
from mend_jax.models.registry import Base, load
from mend_jax.models.stages import Inputs
from mend_jax.weights import fetch

SHAPE: dict[str, Any] = dict(
    vocab_size=parity.VOCABULARY,
    hidden_size=24,
    num_hidden_layers=4,
    num_attention_heads=3,
    intermediate_size=46,
    max_position_embeddings=32,
    type_vocab_size=2,
)


class Case(parity.Case):
    """`logits` of their side as ours has them: [k, answers, classes], whatever the task."""

    def __init__(self, answers: int | None = None) -> None:
        super().__init__(seq2seq=False)
        if answers is not None:
            self.rows = np.ones((len(self.tokens), answers), bool)

    def run_theirs(self, model: Any) -> Any:
        out = super().run_theirs(model)
        if "last_hidden_state" in out:
            return SimpleNamespace(logits=out.last_hidden_state)
        if out.logits.ndim == 3:
            return out
        logits = out.logits[:, None]
        if logits.shape[-1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=-1)
        return SimpleNamespace(logits=logits)


def both(name: str, folder: Path, **changes: Any) -> tuple[Any, Base]:
    torch.manual_seed(0)
    theirs = getattr(transformers, name)(transformers.BertConfig(**SHAPE, **changes))
    theirs = parity.shaken(theirs)
    return theirs, parity.saved(theirs, folder)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: Any) -> tuple[Any, Base]:
    return both("BertForMaskedLM", tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module", params=[1, 3])
def classifier(request: Any, tmp_path_factory: Any) -> tuple[Any, Base]:
    folder = tmp_path_factory.mktemp("classifier")
    return both("BertForSequenceClassification", folder, num_labels=request.param)


def test_masked_lm_logits(masked: tuple[Any, Base]):
    assert masked[1].model.kind == "masked"
    parity.assert_same_logits(*masked, Case())


def test_masked_lm_factors(masked: tuple[Any, Base]):
    sites = {
        "block_1/attention/key": "bert.encoder.layer.1.attention.self.key",
        "block_2/mlp/intermediate": "bert.encoder.layer.2.intermediate.dense",
        "block_3/mlp/output": "bert.encoder.layer.3.output.dense",
    }
    parity.assert_same_factors(*masked, Case(), sites)


def test_masked_lm_at_some_positions(masked: tuple[Any, Base]):
    base, case = masked[1], Case()
    read = jnp.asarray([[0, 20], [8, 3], [13, 1]], jnp.int32)
    run = jax.jit(lambda inputs: base.model.apply({"params": base.params}, inputs))
    wanted = np.take_along_axis(np.asarray(run(case.ours)), np.asarray(read)[..., None], axis=1)
    assert_close(run(case.ours._replace(read=read)), wanted, 1e-5)


def test_features(tmp_path: Path):
    theirs, base = both("BertModel", tmp_path)
    assert base.model.kind == "features"
    parity.assert_same_logits(theirs, base, Case())


def test_classifier_logits(classifier: tuple[Any, Base]):
    theirs, base = classifier
    classes = 2 if theirs.num_labels == 1 else 3
    assert base.model.kind == "classifier" and len(base.config.labels) == classes
    parity.assert_same_logits(theirs, base, Case(answers=1))


def test_classifier_factors(classifier: tuple[Any, Base]):
    """With one logit, their loss is the binary cross-entropy of sigmoid(logit)."""
    theirs, base = classifier
    case = Case(answers=1)
    labels = np.array([1, 0, theirs.num_labels - 1])
    kept: list[Any] = []

    def keep(_: Any, inputs: Any, output: Any) -> None:
        output.retain_grad()
        kept.extend((inputs[0], output))

    hook = theirs.bert.encoder.layer[3].output.dense.register_forward_hook(keep)
    logits = parity.Case.run_theirs(case, theirs).logits
    hook.remove()
    if theirs.num_labels == 1:
        loss_of = torch.nn.functional.binary_cross_entropy_with_logits
        value = loss_of(logits[:, 0], torch.tensor(labels).float())
    else:
        value = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    value.backward()
    pair = mj.Pair(case.ours, jnp.asarray(labels[:, None], jnp.int32))
    site = "block_3/mlp/output"
    ours, captured = jax.jit(mj.capture(mj.sequence_loss(base.model), [site]))(base.params, pair)
    assert_close(ours, value.item(), 1e-5)
    assert not np.any(kept[1].grad[:, 1:].numpy())  # the other rows are not even run here
    assert_close(captured[site].u, kept[0].detach()[:, 0].numpy(), 1e-5)
    assert_close(captured[site].delta, kept[1].grad[:, 0].numpy(), 1e-5)


def test_masked_lm_trunk_and_tail(masked: tuple[Any, Base]):
    parity.assert_parts_are_the_model(masked[1], Case(), "block_(1|3)/mlp/output")


def test_classifier_trunk_and_tail(classifier: tuple[Any, Base]):
    parity.assert_parts_are_the_model(classifier[1], Case(answers=1), "block_3/mlp/output")


def test_default_sites(masked: tuple[Any, Base]):
    wanted = {f"block_{i}/mlp/{name}" for i in (1, 2, 3) for name in ("intermediate", "output")}
    assert set(mj.default_sites(masked[1])) == wanted


@pytest.mark.parametrize(
    "config, logits, names",
    [
        ({"num_labels": 1, "id2label": {"0": "LABEL_0"}}, 1, ("REFUTES", "SUPPORTS")),
        ({"num_labels": 1, "id2label": {"1": "YES", "0": "NO"}}, 1, ("NO", "YES")),
        ({"id2label": {"0": "SUPPORTS"}}, 1, ("REFUTES", "SUPPORTS")),
        ({"id2label": {"10": "K", "2": "C", "0": "A"}}, 3, ("A", "C", "K")),
        ({"num_labels": 3}, 3, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({}, 2, ("LABEL_0", "LABEL_1")),
    ],
)
def test_names_of_the_classes(config: dict[str, Any], logits: int, names: tuple[str, ...]):
    architecture = {"architectures": ["BertForSequenceClassification"]}
    found = bert.BertConfig.from_hf(SHAPE | architecture | config)
    assert (found.task, found.num_labels, found.labels) == ("classification", logits, names)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden_act": "mish"}, "hidden_act = 'mish' is not.*gelu"),
        ({"position_embedding_type": "relative_key"}, "relative_key.*'absolute'"),
        ({"problem_type": "regression"}, "problem_type = 'regression'"),
        ({"architectures": ["BertForTokenClassification"]}, "TokenClass.*BertForMaskedLM"),
        (
            {
                "architectures": ["BertForSequenceClassification"],
                "num_labels": 3,
                "id2label": {"0": "NO", "1": "YES"},
            },
            "3 classes, but id2label names NO, YES",
        ),
    ],
)
def test_a_variant_that_is_not_implemented_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        bert.BertConfig.from_hf(SHAPE | change)


def test_more_tokens_than_positions_are_refused(masked: tuple[Any, Base]):
    base = masked[1]
    with pytest.raises(ValueError, match="33 positions .* has 32"):
        inputs = Inputs(jnp.zeros((1, 33), jnp.int32))
        jax.eval_shape(base.model.apply, {"params": base.params}, inputs)


def test_a_real_model():
    """MiniLM (tensors without the prefix `bert.`) on sentences of three lengths."""
    base = load("all-minilm-l6-v2")
    assert base.model.kind == "features"
    theirs = transformers.BertModel.from_pretrained(fetch("all-minilm-l6-v2")).eval()
    texts = ["Paris is the capital of France.", "What?", "The facts of a model can be edited."]
    case = Case()
    base.tokenizer.enable_padding()
    encoded = base.tokenizer.encode_batch(texts)
    case.tokens = np.array([x.ids for x in encoded], np.int32)
    case.mask = case.rows = np.array([x.attention_mask for x in encoded], bool)
    assert not case.mask.all()
    case.theirs["attention_mask"] = torch.tensor(case.mask).long()
    parity.assert_same_logits(theirs, base, case)
