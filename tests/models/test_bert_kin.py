"""RoBERTa, XLM-R, CamemBERT and DistilBERT in their tasks against Hugging Face's modules."""

from pathlib import Path
from typing import Any

import numpy as np
import parity
import pytest
import torch
import transformers
from test_bert import SHAPE, Case

import mend_jax as mj
from mend_jax.models.registry import Base

SMALL = SHAPE | {"num_hidden_layers": 2}
DISTIL = dict(
    vocab_size=parity.VOCABULARY,
    dim=24,
    n_layers=2,
    n_heads=3,
    hidden_dim=46,
    max_position_embeddings=32,
)
KIN = {
    "Roberta": (SMALL | {"type_vocab_size": 1, "hidden_act": "relu"}, "roberta.encoder.layer"),
    "XLMRoberta": (SMALL | {"pad_token_id": 3}, "roberta.encoder.layer"),
    "Camembert": (SMALL, "roberta.encoder.layer"),
    "DistilBert": (DISTIL, "distilbert.transformer.layer"),
}


def both(name: str, task: str, folder: Path, **changes: Any) -> tuple[Any, Base]:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**(KIN[name][0] | changes))
    theirs = parity.shaken(getattr(transformers, f"{name}{task}")(config))
    return theirs, parity.saved(theirs, folder)


@pytest.mark.parametrize("name", KIN)
def test_masked_lm(name: str, tmp_path: Path):
    theirs, base = both(name, "ForMaskedLM", tmp_path)
    assert base.model.kind == "masked"
    case = Case()
    case.tokens[1, 4] = 3  # where that is XLM-R's padding, a token without a position
    parity.assert_same_logits(theirs, base, case)
    wide, narrow = "intermediate.dense", "output.dense"
    key = "attention.self.key"
    if name == "DistilBert":
        wide, narrow, key = "ffn.lin1", "ffn.lin2", "attention.k_lin"
    sites = {
        "block_0/attention/key": f"{KIN[name][1]}.0.{key}",
        "block_0/mlp/output": f"{KIN[name][1]}.0.{narrow}",
        "block_1/mlp/intermediate": f"{KIN[name][1]}.1.{wide}",
    }
    parity.assert_same_factors(theirs, base, case, sites)
    parity.assert_parts_are_the_model(base, case, "block_1/mlp/output")
    wanted = {f"block_{i}/mlp/{part}" for i in (0, 1) for part in ("intermediate", "output")}
    assert set(mj.default_sites(base)) == wanted


@pytest.mark.parametrize("name", ["Roberta", "DistilBert"])
@pytest.mark.parametrize("labels", [1, 3])
def test_classifier(name: str, labels: int, tmp_path: Path):
    theirs, base = both(name, "ForSequenceClassification", tmp_path, num_labels=labels)
    assert base.model.kind == "classifier"
    parity.assert_same_logits(theirs, base, Case(answers=1))


@pytest.mark.parametrize("name", ["Camembert", "DistilBert"])
def test_features(name: str, tmp_path: Path):
    theirs, base = both(name, "Model", tmp_path)
    assert base.model.kind == "features"
    parity.assert_same_logits(theirs, base, Case())


def test_positions_end_where_the_table_does(tmp_path: Path):
    """Of 32 rows, those of 30 positions are left after the number of the padding token."""
    base = both("Roberta", "ForMaskedLM", tmp_path)[1]
    tokens = np.full((1, 31), 5, np.int32)
    with pytest.raises(ValueError, match="31 positions .* has 30"):
        base.model.apply({"params": base.params}, mj.Inputs(tokens))
