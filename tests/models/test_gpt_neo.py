"""GPT-Neo against Hugging Face's PyTorch module; the window is shorter than the text."""

from dataclasses import replace
from typing import Any

import parity
import pytest
import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM

import mend_jax as mj
from mend_jax.models import gpt_neo
from mend_jax.models.registry import Base

SHAPE = dict(
    vocab_size=parity.VOCABULARY,
    max_position_embeddings=30,
    hidden_size=24,
    num_layers=2,
    num_heads=3,
    attention_types=[[["global", "local"], 1]],
    window_size=5,
    eos_token_id=None,  # or theirs would not say it
)
KINDS: dict[str, dict[str, Any]] = {
    "global, local": {},
    "local, global": {"attention_types": [[["local"], 1], [["global"], 1]]},
    "intermediate_size": {"intermediate_size": 46, "activation_function": "relu"},
}


@pytest.fixture(scope="module", params=list(KINDS))
def both(request: Any, tmp_path_factory: Any) -> tuple[Any, Base]:
    torch.manual_seed(0)
    theirs = GPTNeoForCausalLM(GPTNeoConfig(**(SHAPE | KINDS[request.param])))
    theirs = parity.shaken(theirs, 0.1)  # scores are not scaled: with more, softmax is one-hot
    return theirs, parity.saved(theirs, tmp_path_factory.mktemp("gpt_neo"))


def test_logits(both: tuple[Any, Base]):
    parity.assert_same_logits(*both, parity.Case(seq2seq=False))


def test_factors(both: tuple[Any, Base]):
    sites = {
        "h_0/attn/q_proj": "transformer.h.0.attn.attention.q_proj",
        "h_1/attn/k_proj": "transformer.h.1.attn.attention.k_proj",
        "h_1/mlp/c_fc": "transformer.h.1.mlp.c_fc",
        "h_1/mlp/c_proj": "transformer.h.1.mlp.c_proj",
    }
    parity.assert_same_factors(*both, parity.Case(seq2seq=False), sites)


def test_generation(both: tuple[Any, Base]):
    parity.assert_same_words(*both, parity.Case(seq2seq=False))


@pytest.mark.parametrize("at", ["h_0/mlp/c_fc", "h_1/mlp/c_proj"])
def test_trunk_and_tail(both: tuple[Any, Base], at: str):
    parity.assert_parts_are_the_model(both[1], parity.Case(seq2seq=False), at)


def test_read_positions_are_the_full_logits(both: tuple[Any, Base]):
    parity.assert_read_positions_are_the_full_logits(both[1], parity.Case(seq2seq=False))


def test_default_sites(both: tuple[Any, Base]):
    config = replace(both[1].config, num_layers=5, attention_layers=("global",) * 5)
    base = both[1]._replace(model=both[1].model.clone(config=config), config=config)
    wanted = {f"h_{i}/mlp/{name}" for i in (2, 3, 4) for name in ("c_fc", "c_proj")}
    assert set(mj.default_sites(base)) == wanted


def test_the_kinds_of_attention_are_read():
    def read(**given: Any) -> tuple[str, ...]:
        plain = {k: v for k, v in SHAPE.items() if k != "attention_types"}
        return gpt_neo.GPTNeoConfig.from_hf(plain | {"num_layers": 4} | given).attention_layers

    twice = ("global", "local", "global", "local")
    assert read(num_layers=24) == ("global", "local") * 12  # transformers' default
    with pytest.raises(ValueError, match="attention_types .* in 4 blocks is not supported"):
        read()
    assert read(attention_types=[[["global", "local"], 2]]) == twice
    assert read(attention_layers=list(twice)) == twice
    assert read(attention_types=[[["local"], 3], [["global"], 1]]) == ("local",) * 3 + ("global",)
    with pytest.raises(ValueError, match="in 4 blocks is not supported"):
        read(attention_types=[[["global", "local"], 3]])
    with pytest.raises(ValueError, match="sparse.*is not supported"):
        read(attention_types=[[["global", "sparse"], 2]])
