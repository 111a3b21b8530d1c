"""Llama's kin against Hugging Face's PyTorch modules, on the same weights."""

from typing import Any, NamedTuple

import parity
import pytest
import torch
import transformers

import mend_jax as mj
from mend_jax.models.phi3 import Phi3Config
from mend_jax.models.registry import Base

SHAPE: dict[str, Any] = dict(
    vocab_size=parity.VOCABULARY,
    hidden_size=24,
    intermediate_size=46,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
    max_position_embeddings=64,
    tie_word_embeddings=False,
    eos_token_id=None,
    pad_token_id=0,
)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {
    "rope_type": "longrope",
    "partial_rotary_factor": 0.67,
    "short_factor": [1.5, 2.0],
    "long_factor": [3.0, 9.0],
}
MIXED = ["sliding_attention", "full_attention"]


class Kin(NamedTuple):
    """name: of their classes, before Config and ForCausalLM. own: what differs from SHAPE."""

    name: str
    own: dict[str, Any]


KIN = {
    "gemma": Kin("Gemma", dict(head_dim=10)),
    "gemma2": Kin(
        "Gemma2",
        dict(
            head_dim=10,
            sliding_window=5,
            query_pre_attn_scalar=7,
            attn_logit_softcapping=1.5,
            final_logit_softcapping=3.0,
        ),
    ),
    "gemma3": Kin(
        "Gemma3Text",
        dict(head_dim=10, sliding_window=5, layer_types=MIXED, query_pre_attn_scalar=7),
    ),
    "granite": Kin(
        "Granite",
        dict(
            embedding_multiplier=3.0,
            residual_multiplier=0.4,
            attention_multiplier=0.2,
            logits_scaling=2.5,
            attention_bias=True,
            mlp_bias=True,
        ),
    ),
    "llama, biases": Kin(
        "Llama",
        dict(
            attention_bias=True,
            mlp_bias=True,
            hidden_act="gelu",
            rope_parameters=YARN | {"rope_theta": 500.0},
        ),
    ),
    "ministral": Kin("Ministral", dict(sliding_window=5, layer_types=MIXED, head_dim=10)),
    "olmo2": Kin("Olmo2", dict(attention_bias=True)),
    "phi3": Kin("Phi3", dict(sliding_window=5, rope_parameters=LONGROPE)),
    "qwen2": Kin("Qwen2", dict(use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    "qwen3": Kin(
        "Qwen3",
        dict(
            use_sliding_window=True,
            sliding_window=5,
            layer_types=MIXED,
            head_dim=10,
            attention_bias=True,
        ),
    ),
    "seed_oss": Kin("SeedOss", dict(head_dim=10, attention_out_bias=False)),
    "smollm3": Kin(
        "SmolLM3", dict(use_sliding_window=True, sliding_window=5, no_rope_layer_interval=2)
    ),
}


def torch_model(kin: Kin) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kin.name}Config")(**(SHAPE | kin.own))
    model = f"{kin.name.removesuffix('Text')}ForCausalLM"
    return parity.shaken(getattr(transformers, model)(config))


@pytest.fixture(scope="module", params=list(KIN))
def both(request: Any, tmp_path_factory: Any) -> tuple[Any, Base]:
    theirs = torch_model(KIN[request.param])
    return theirs, parity.saved(theirs, tmp_path_factory.mktemp("kin"))


def test_logits_and_factors(both: tuple[Any, Base]):
    case = parity.Case(seq2seq=False)
    parity.assert_same_logits(*both, case)
    names = ("layers_0/self_attn/k_proj", "layers_1/self_attn/o_proj", "layers_1/mlp/gate_proj")
    sites: dict[str, Any] = {
        name: f"model.{name.replace('_', '.', 1).replace('/', '.')}" for name in names
    }
    if isinstance(both[1].config, Phi3Config):  # 4 heads of queries, 2 of keys, each of 6 features
        sites[names[0]] = "model.layers.0.self_attn.qkv_proj", slice(24, 36)
        sites[names[2]] = "model.layers.1.mlp.gate_up_proj", slice(0, 46)
        sites["layers_1/mlp/up_proj"] = "model.layers.1.mlp.gate_up_proj", slice(46, 92)
    parity.assert_same_factors(*both, case, sites)


def test_sentences(both: tuple[Any, Base]):
    parity.assert_same_sentences(*both)


def test_default_sites(both: tuple[Any, Base]):
    wanted = {f"layers_{i}/mlp/{name}_proj" for i in (0, 1) for name in ("gate", "up")}
    assert set(mj.default_sites(both[1])) == wanted
