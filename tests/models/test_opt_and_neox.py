"""OPT, GPT-NeoX and Pythia against Hugging Face's PyTorch modules."""

from pathlib import Path
from typing import Any, NamedTuple

import parity
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import mend_jax as mj
from mend_jax.models.registry import Base, load

SHAPE: dict[str, Any] = dict(
    vocab_size=parity.VOCABULARY,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    max_position_embeddings=64,
    eos_token_id=None,
    pad_token_id=0,
)


class Made(NamedTuple):
    """name: of transformers' classes. own: of its config. prefix: of their modules. sites: {ours:
    theirs}, without the prefix. wide: names of the MLP's layers."""

    name: str
    own: dict[str, Any]
    prefix: str
    sites: dict[str, str]
    wide: tuple[str, str]


NEOX = {
    "layers_0/attention/query_key_value": "layers.0.attention.query_key_value",
    "layers_1/attention/dense": "layers.1.attention.dense",
    "layers_1/mlp/dense_h_to_4h": "layers.1.mlp.dense_h_to_4h",
}
NEOX_WIDE = ("dense_h_to_4h", "dense_4h_to_h")
HALF = {"rotary_pct": 0.5, "intermediate_size": 46}
OPT_SITES = {
    "layers_0/self_attn/k_proj": "layers.0.self_attn.k_proj",
    "layers_0/mlp/fc2": "layers.0.fc2",
    "layers_1/mlp/fc1": "layers.1.fc1",
}
MADE = {
    "pythia": Made("GPTNeoX", HALF, "gpt_neox", NEOX, NEOX_WIDE),
    "gpt-neox, one after the other": Made(
        "GPTNeoX", HALF | {"use_parallel_residual": False}, "gpt_neox", NEOX, NEOX_WIDE
    ),
    "opt": Made("OPT", {"ffn_dim": 46}, "model.decoder", OPT_SITES, ("fc1", "fc2")),
}


def torch_model(made: Made) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{made.name}Config")(**(SHAPE | made.own))
    return parity.shaken(getattr(transformers, f"{made.name}ForCausalLM")(config))


@pytest.fixture(scope="module", params=list(MADE))
def both(request: Any, tmp_path_factory: Any) -> tuple[Made, Any, Base]:
    made = MADE[request.param]
    theirs = torch_model(made)
    return made, theirs, parity.saved(theirs, tmp_path_factory.mktemp("made"))


def test_logits_and_factors(both: tuple[Made, Any, Base]):
    made, theirs, base = both
    case = parity.Case(seq2seq=False)
    parity.assert_same_logits(theirs, base, case)
    sites = {ours: f"{made.prefix}.{module}" for ours, module in made.sites.items()}
    parity.assert_same_factors(theirs, base, case, sites)
    parity.assert_parts_are_the_model(base, case, f"layers_1/mlp/{made.wide[0]}")


def test_sentences(both: tuple[Made, Any, Base]):
    parity.assert_same_sentences(*both[1:])


def test_default_sites(both: tuple[Made, Any, Base]):
    wanted = {f"layers_{i}/mlp/{name}" for i in (0, 1) for name in both[0].wide}
    assert set(mj.default_sites(both[2])) == wanted


def test_the_head_by_its_older_name(tmp_path: Path):
    """As Pythia's own files call it."""
    torch_model(MADE["pythia"]).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    names = {"lm_head.weight": "embed_out.weight", "embed_out.weight": "embed_out.weight"}
    save_file({names.get(name, name): x for name, x in tensors.items()}, path)
    assert "embedding" in load(str(tmp_path)).params["head"]
