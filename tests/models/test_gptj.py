"""GPT-J against Hugging Face's PyTorch module."""

from dataclasses import replace
from typing import Any

import parity
import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM

import mend_jax as mj
from mend_jax.models import gptj
from mend_jax.models.registry import Base

SHAPE = dict(
    vocab_size=parity.VOCABULARY,
    n_positions=30,
    n_embd=24,
    n_layer=2,
    n_head=3,
    rotary_dim=4,
    eos_token_id=None,  # or theirs would not say it
)
KINDS: dict[str, dict[str, Any]] = {
    "half of a head turns": {},
    "all of a head turns": {"rotary_dim": 8, "n_inner": 46},
}


@pytest.fixture(scope="module", params=list(KINDS))
def both(request: Any, tmp_path_factory: Any) -> tuple[Any, Base]:
    torch.manual_seed(0)
    theirs = parity.shaken(GPTJForCausalLM(GPTJConfig(**(SHAPE | KINDS[request.param]))))
    return theirs, parity.saved(theirs, tmp_path_factory.mktemp("gptj"))


def test_logits(both: tuple[Any, Base]):
    parity.assert_same_logits(*both, parity.Case(seq2seq=False))


def test_factors(both: tuple[Any, Base]):
    sites = {
        "h_0/attn/k_proj": "transformer.h.0.attn.k_proj",
        "h_1/attn/out_proj": "transformer.h.1.attn.out_proj",
        "h_1/mlp/fc_in": "transformer.h.1.mlp.fc_in",
        "h_1/mlp/fc_out": "transformer.h.1.mlp.fc_out",
    }
    parity.assert_same_factors(*both, parity.Case(seq2seq=False), sites)


def test_generation(both: tuple[Any, Base]):
    parity.assert_same_words(*both, parity.Case(seq2seq=False))


@pytest.mark.parametrize("at", ["h_0/mlp/fc_in", "h_1/mlp/fc_out"])
def test_trunk_and_tail(both: tuple[Any, Base], at: str):
    parity.assert_parts_are_the_model(both[1], parity.Case(seq2seq=False), at)


def test_read_positions_are_the_full_logits(both: tuple[Any, Base]):
    parity.assert_read_positions_are_the_full_logits(both[1], parity.Case(seq2seq=False))


def test_default_sites(both: tuple[Any, Base]):
    config = replace(both[1].config, n_layer=5)
    base = both[1]._replace(model=both[1].model.clone(config=config), config=config)
    wanted = {f"h_{i}/mlp/{name}" for i in (2, 3, 4) for name in ("fc_in", "fc_out")}
    assert set(mj.default_sites(base)) == wanted


@pytest.mark.parametrize("turning", [None, 5, 10])
def test_rotary_features_that_do_not_fit_are_refused(turning: int | None):
    wanted = "a whole number" if turning is None else "at most 8"
    with pytest.raises(ValueError, match=f"rotary_dim = {turning} .*{wanted}"):
        gptj.GPTJConfig.from_hf(SHAPE | {"rotary_dim": turning})
