"""GPT-2 against Hugging Face's PyTorch module."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import parity
import pytest
import torch
from compare import assert_close
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

import mend_jax as mj
from mend_jax.models import gpt2
from mend_jax.models.generate import generate
from mend_jax.models.registry import Base, load
from mend_jax.models.stages import Inputs

SHAPE = dict(
    vocab_size=parity.VOCABULARY,
    n_positions=30,
    n_embd=24,
    n_layer=2,
    n_head=3,
    eos_token_id=None,  # or theirs would not say it
)
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "n_inner": {"n_inner": 46, "activation_function": "relu"},
    "gelu": {"n_inner": 46, "activation_function": "gelu"},
}


@pytest.fixture(scope="module", params=list(KINDS))
def both(request: Any, tmp_path_factory: Any) -> tuple[Any, Base]:
    torch.manual_seed(0)
    theirs = parity.shaken(GPT2LMHeadModel(GPT2Config(**SHAPE, **KINDS[request.param])))
    return theirs, parity.saved(theirs, tmp_path_factory.mktemp("gpt2"))


def test_logits(both: tuple[Any, Base]):
    parity.assert_same_logits(*both, parity.Case(seq2seq=False))


def test_factors(both: tuple[Any, Base]):
    sites = {
        "h_0/attn/c_attn": "transformer.h.0.attn.c_attn",
        "h_1/attn/c_proj": "transformer.h.1.attn.c_proj",
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
    config = replace(both[1].config, n_layer=5)
    base = both[1]._replace(model=both[1].model.clone(config=config), config=config)
    wanted = {f"h_{i}/mlp/{name}" for i in (2, 3, 4) for name in ("c_fc", "c_proj")}
    assert set(mj.default_sites(base)) == wanted


def test_names_as_on_the_hub(both: tuple[Any, Base], tmp_path: Path):
    """No `transformer.` before the names, and the masks beside the weights."""
    both[0].save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    bare = {name.removeprefix("transformer."): x for name, x in load_file(file).items()}
    assert "h.0.mlp.c_fc.weight" in bare
    bare["h.0.attn.bias"] = torch.tril(torch.ones(1, 1, 30, 30))
    save_file(bare, file)
    found = load(str(tmp_path))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), found.params, both[1].params))


def test_too_many_positions_are_refused(both: tuple[Any, Base]):
    base = both[1]
    tokens = jnp.zeros((2, 31), jnp.int32)
    with pytest.raises(ValueError, match="31 positions .* has 30"):
        base.model.apply({"params": base.params}, Inputs(tokens))
    prompt, lengths = tokens[:, :20], jnp.asarray([20, 3], jnp.int32)
    with pytest.raises(ValueError, match="31 positions .* has 30"):
        generate(base.model, base.params, prompt, lengths, 11)


def test_bfloat16_is_near(both: tuple[Any, Base]):
    """Within the rounding of activations; the logits stay float32."""
    base, case = both[1], parity.Case(seq2seq=False)
    wanted = jax.jit(base.model.apply)({"params": base.params}, case.ours)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), base.params)
    found = jax.jit(base.model.clone(dtype=jnp.bfloat16).apply)({"params": half}, case.ours)
    assert found.dtype == jnp.float32
    assert_close(found, wanted, 0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"activation_function": "mish"},
        {"scale_attn_by_inverse_layer_idx": True},
        {"tie_word_embeddings": False},
    ],
)
def test_what_is_not_implemented_is_refused(change: dict[str, Any]):
    ((key, value),) = change.items()
    with pytest.raises(ValueError, match=f"{key} = {value!r} is not supported"):
        gpt2.GPT2Config.from_hf(GPT2Config(**SHAPE).to_dict() | change)
