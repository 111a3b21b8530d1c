"""Configurations of every family: the logits are transformers', or one error names file and key.

Each configuration is a small model's config.json with some keys changed (or taken out: `ABSENT`).
Transformers makes of it a config and a model with random weights, and `load` gets the same
config.json and the same tensors. `SAME` has to load; the others may be refused. Hypothesis draws
combinations of all of them.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
import transformers
from compare import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

from mend_jax.models import registry
from mend_jax.models.settings import ConfigError
from mend_jax.models.stages import Inputs
from mend_jax.weights import Weights, WeightsError

ABSENT = "take the key out"
LENGTH = 13
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0, 1.5, 2.0, 2.5],
    "long_factor": [2.0, 3.0, 9.0, 9.5],
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


class Kind(NamedTuple):
    """config, model: names in transformers. shape: of the small model. same: {key: values that
    have to load}. other: {key: values that may be refused}."""

    config: str
    model: str
    shape: Mapping[str, Any]
    same: Mapping[str, tuple[Any, ...]]
    other: Mapping[str, tuple[Any, ...]]


NUMBERS = (float("nan"), float("inf"), 0, -1.0, None, "1e-5", True)
SIZES = (0, -1, 2.0, None, "2", True)
GENERAL_SAME: dict[str, tuple[Any, ...]] = {
    "torch_dtype": ("bfloat16", None),
    "use_cache": (False,),
    "initializer_range": (0.5,),
    "pad_token_id": (0,),
    "task_specific_params": ({"summarization": {"prefix": "x"}},),
    "architectures": (ABSENT, None),
    "pruned_heads": ({},),
    "output_past": (True,),
    "unheard_of": (None,),
}
GENERAL_OTHER: dict[str, tuple[Any, ...]] = {
    "vocab_size": SIZES,
    "tie_word_embeddings": (True, False, ABSENT, None, 0),
    "quantization_config": ({"quant_method": "fp8"}, {"quant_method": "mxfp4"}, {}),
    "is_decoder": (True,),
    "add_cross_attention": (True,),
    "pruned_heads": ({"0": [1]},),
    "unheard_of": (0, 1.0, False, "x"),
    "logit_scale": (0.25,),
    "auto_map": ({"AutoModel": "own.Own"},),
    "per_layer_config": ({"0": {"num_attention_heads": 1}},),
    "architectures": ("Llama", ["Unheard"], [3]),
}


def kind(
    config: str, model: str, shape: dict[str, Any], same: dict[str, Any], other: dict[str, Any]
) -> Kind:
    """With what all kinds share."""
    general = {k: v + other.pop(k, ()) for k, v in GENERAL_OTHER.items()}
    shape = {"vocab_size": parity.VOCABULARY, "architectures": [model]} | shape
    return Kind(config, model, shape, GENERAL_SAME | same, general | other)


LLAMA_SHAPE: dict[str, Any] = dict(
    hidden_size=24,
    intermediate_size=22,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
HEADLESS_SHAPE = {k: v for k, v in LLAMA_SHAPE.items() if k != "head_dim"}
ROTARY_SAME: dict[str, tuple[Any, ...]] = {
    "rms_norm_eps": (1e-3, ABSENT),
    "rope_theta": (50.0, ABSENT),
    "rope_parameters": (
        {"rope_type": "default", "rope_theta": 50.0},
        LLAMA3 | {"rope_theta": 50.0},
        LLAMA3 | {"rope_theta": 50.0, "original_max_position_embeddings": 16},
    ),
    "rope_scaling": (
        None,
        LLAMA3,
        LLAMA3 | {"original_max_position_embeddings": 8},
        {"type": "linear", "factor": 2.0},
        {"type": "dynamic", "factor": 2.0},
        {"type": "yarn", "factor": 2.0},
        YARN,
        YARN | {"factor": None},
        YARN | {"attention_factor": 0.5, "beta_fast": 8.0, "beta_slow": 2.0},
        YARN | {"mscale": 0.7, "mscale_all_dim": 1.5, "truncate": False},
    ),
    "head_dim": (10,),
    "num_key_value_heads": (4, 1, None),
    "attention_bias": (True, False),
    "mlp_bias": (True, False),
    "hidden_act": ("gelu", "relu", "gelu_pytorch_tanh", ABSENT),
}
ROTARY_KIN: dict[str, tuple[Any, ...]] = {
    "rms_norm_eps": (ABSENT,),
    "rope_theta": (ABSENT,),
    "rope_scaling": (LLAMA3, YARN),
    "head_dim": (10,),
    "num_key_value_heads": (1,),
}
HEADLESS = {k: v for k, v in ROTARY_KIN.items() if k != "head_dim"}
"""Of what Llama's kin read by the same code."""
ROTARY_OTHER: dict[str, tuple[Any, ...]] = {
    "rms_norm_eps": NUMBERS,
    "rope_theta": NUMBERS,
    "rope_parameters": (
        {"rope_theta": 0},
        {"rope_type": "linear", "factor": True, "rope_theta": 1e4},
        {"rope_type": "linear", "rope_theta": 1e4},
        {"rope_type": "yarn", "factor": "2", "rope_theta": 1e4},
        {"rope_type": "yarn", "rope_theta": 1e4},
        {"rope_type": "dynamic", "factor": 0.0, "rope_theta": 1e4},
        {"rope_type": "longrope", "factor": 2.0, "rope_theta": 1e4},
        {"rope_type": "proportional", "factor": 2.0, "rope_theta": 1e4},
        YARN | {"beta_fast": 0, "rope_theta": 1e4},
        YARN | {"truncate": 1, "rope_theta": 1e4},
        {"rope_type": "default", "factor": 2.0, "rope_theta": 1e4},
        {"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 1e4},
        {"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4},
        LLAMA3 | {"low_freq_factor": 4.0, "rope_theta": 1e4},
        LLAMA3 | {"factor": float("nan"), "rope_theta": 1e4},
        "default",
    ),
    "rope_scaling": ({"type": "linear", "factor": 2}, {"factor": 2.0}),
    "partial_rotary_factor": (0.5, 1.0),
    "original_max_position_embeddings": (8,),
    "hidden_act": ("gelu", "mish", None, ABSENT),
    "attention_bias": (True, False),
    "mlp_bias": (True,),
    "head_dim": (7, 0, ABSENT),
    "num_key_value_heads": (3, 0, None, ABSENT),
    "num_attention_heads": (5, 0),
    "num_hidden_layers": SIZES,
    "sliding_window": (0, -1, 2.5, "5"),
    "is_causal": (False,),
    "attention_dropout": (0.5,),
}
WINDOW = (5, 4096, None)
LISTS = (["full_attention"], ["sliding_attention"], ["chunked_attention"], [], None)
PAIRS = (["full_attention", "sliding_attention"], ["sliding_attention", "full_attention"])
QWEN_OTHER: dict[str, tuple[Any, ...]] = {
    "use_sliding_window": (True, False, None),
    "sliding_window": (5, 0),
    "layer_types": LISTS,
    "max_window_layers": (0, 1, -1),
}
GEMMA_SHAPE = LLAMA_SHAPE | {"tie_word_embeddings": True, "head_dim": 10}
GEMMA2_SHAPE = GEMMA_SHAPE | {
    "num_hidden_layers": 2,
    "sliding_window": 5,
    "query_pre_attn_scalar": 7,
    "attn_logit_softcapping": 1.5,
    "final_logit_softcapping": 2.5,
}
GEMMA_SAME: dict[str, tuple[Any, ...]] = {
    "rope_theta": (50.0, ABSENT),
    "rms_norm_eps": (ABSENT,),
    "num_key_value_heads": (1,),
    "attention_bias": (True, False),
}
GEMMA2_SAME = GEMMA_SAME | {
    "hidden_activation": ("gelu", "relu", ABSENT),
    "hidden_act": ("relu",),
    "query_pre_attn_scalar": (3, ABSENT),
    "sliding_window": (3, ABSENT),
    "final_logit_softcapping": (1.0, None, ABSENT),
    "layer_types": (None, *PAIRS, ["full_attention"] * 2, ["sliding_attention"] * 2),
    "cache_implementation": ("hybrid",),
}
GEMMA_OTHER: dict[str, tuple[Any, ...]] = {
    **{k: v for k, v in ROTARY_OTHER.items() if k not in ("head_dim", "hidden_act")},
    "num_key_value_heads": (3, 0),
    "use_bidirectional_attention": (True,),
}
GEMMA2_OTHER = GEMMA_OTHER | {
    "query_pre_attn_scalar": (0, -1, None),
    "final_logit_softcapping": NUMBERS,
    "attn_logit_softcapping": NUMBERS,
    "sliding_window": (0, -1),
    "layer_types": LISTS,
}
GPT_OTHER: dict[str, tuple[Any, ...]] = {
    "activation_function": ("mish", "quick_gelu", None),
    "layer_norm_epsilon": NUMBERS,
    "scale_attn_weights": (False, None),
    "scale_attn_by_inverse_layer_idx": (True,),
}
ACTIVATIONS = ("relu", ABSENT)
BERT_SHAPE: dict[str, Any] = dict(
    hidden_size=24,
    num_hidden_layers=1,
    num_attention_heads=3,
    intermediate_size=46,
    max_position_embeddings=32,
)
BERT_SAME: dict[str, tuple[Any, ...]] = {
    "hidden_act": ACTIVATIONS,
    "layer_norm_eps": (1e-3, ABSENT),
    "position_embedding_type": ("absolute",),
    "type_vocab_size": (3,),
    "pooler_type": ("first_token_transform",),
}
ROBERTA_SAME = BERT_SAME | {"type_vocab_size": (1,), "pad_token_id": (0, 5, ABSENT)}
BERT_OTHER: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("mish", None),
    "layer_norm_eps": NUMBERS,
    "position_embedding_type": ("relative_key", "relative_key_query"),
    "problem_type": ("regression", "multi_label_classification"),
    "num_attention_heads": (5, 0),
}
ROBERTA_OTHER: dict[str, tuple[Any, ...]] = {"pad_token_id": (None, -1, 31, 2.0)}
T5_SHAPE: dict[str, Any] = dict(
    d_model=24,
    d_kv=10,
    d_ff=46,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
    decoder_start_token_id=0,
)
T5_SAME: dict[str, tuple[Any, ...]] = {
    "feed_forward_proj": ("gated-gelu", "gelu", ABSENT),
    "dense_act_fn": ("relu", "gelu_new"),
    "is_gated_act": (True, False),
    "layer_norm_epsilon": (1e-3, ABSENT),
    "num_decoder_layers": (2, None),
    "relative_attention_num_buckets": (9, ABSENT),
    "relative_attention_max_distance": (12,),
    "n_positions": (512,),
    "scale_decoder_outputs": (False,),
}
T5_KIN: dict[str, tuple[Any, ...]] = {
    "feed_forward_proj": ("relu", ABSENT),
    "num_decoder_layers": (2,),
    "num_layers": (2,),
    "scale_decoder_outputs": (True, False),
}
T5_OTHER: dict[str, tuple[Any, ...]] = {
    "feed_forward_proj": ("gated-mish", "gated-", "a-b-c", None),
    "dense_act_fn": ("mish",),
    "relative_attention_num_buckets": (1, 2, 3, 41, 0),
    "relative_attention_max_distance": (3, 4, 0),
    "layer_norm_epsilon": NUMBERS,
    "eos_token_id": ([1, 2], 61),
    "is_encoder_decoder": (False,),
}

KINDS = {
    "llama": kind(
        "LlamaConfig",
        "LlamaForCausalLM",
        LLAMA_SHAPE,
        ROTARY_SAME,
        ROTARY_OTHER
        | {
            "sliding_window": WINDOW,
            "use_sliding_window": (True, False),
            "layer_types": LISTS,
            "max_window_layers": (0, 1),
        },
    ),
    "mistral": kind(
        "MistralConfig",
        "MistralForCausalLM",
        LLAMA_SHAPE,
        ROTARY_KIN | {"sliding_window": (5, 1, None, ABSENT)},
        ROTARY_OTHER
        | {
            "use_sliding_window": (True, False),
            "layer_types": LISTS,
            "max_window_layers": (0, 1),
        },
    ),
    "qwen2": kind(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        HEADLESS_SHAPE,
        ROTARY_KIN | {"sliding_window": (5, None, ABSENT), "attention_bias": (True, False)},
        ROTARY_OTHER | QWEN_OTHER,
    ),
    "qwen2, windowed": kind(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        LLAMA_SHAPE
        | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}
        | {"num_hidden_layers": 2},
        {
            "sliding_window": (5, 3),
            "max_window_layers": (0, 1, 2, ABSENT),
            "layer_types": (None, *PAIRS),
        },
        QWEN_OTHER | {"sliding_window": (None, ABSENT, 0), "layer_types": LISTS},
    ),
    "qwen3": kind(
        "Qwen3Config",
        "Qwen3ForCausalLM",
        LLAMA_SHAPE,
        ROTARY_KIN | {"sliding_window": (5, None, ABSENT)},
        ROTARY_OTHER | QWEN_OTHER | {"head_dim": (None, 7)},
    ),
    "ministral": kind(
        "MinistralConfig",
        "MinistralForCausalLM",
        LLAMA_SHAPE | {"sliding_window": 5, "num_hidden_layers": 2},
        {
            "rope_scaling": (LLAMA3, YARN),
            "sliding_window": (3, ABSENT),  # with none, transformers cannot run it
            "layer_types": (None, *PAIRS),
        },
        ROTARY_OTHER | {"layer_types": LISTS, "use_sliding_window": (True,), "head_dim": (7, 0)},
    ),
    "seed_oss": kind(
        "SeedOssConfig",
        "SeedOssForCausalLM",
        LLAMA_SHAPE,
        ROTARY_KIN
        | {"attention_bias": (True, False), "attention_out_bias": (True, False)}
        | {"mlp_bias": (True, False)},
        ROTARY_OTHER | {"attention_out_bias": (None, 1), "layer_types": LISTS},
    ),
    "smollm3": kind(
        "SmolLM3Config",
        "SmolLM3ForCausalLM",
        HEADLESS_SHAPE
        | {"num_hidden_layers": 2, "no_rope_layer_interval": 2, "pad_token_id": 0},
        HEADLESS
        | {
            "no_rope_layers": (None, [0, 1], [1, 1, 0], [0, 0]),
            "no_rope_layer_interval": (1, 4, ABSENT),
            "layer_types": (None, ["full_attention"] * 2),
            "attention_bias": (True, False),
            "mlp_bias": (True,),
            "sliding_window": (5, None),
        },
        ROTARY_OTHER
        | QWEN_OTHER
        | {"no_rope_layers": ([1], [2, 1], "1", []), "no_rope_layer_interval": (0, None)},
    ),
    "smollm3, windowed": kind(
        "SmolLM3Config",
        "SmolLM3ForCausalLM",
        HEADLESS_SHAPE
        | {"num_hidden_layers": 2, "pad_token_id": 0}
        | {"use_sliding_window": True, "sliding_window": 5},
        {
            "no_rope_layers": (None, [0, 1], [1, 1], [0, 0]),
            "no_rope_layer_interval": (1, 2),
            "layer_types": (None, *PAIRS),
        },
        {"layer_types": LISTS, "sliding_window": (None, 0), "use_sliding_window": (False,)},
    ),
    "gemma": kind(
        "GemmaConfig",
        "GemmaForCausalLM",
        GEMMA_SHAPE,
        GEMMA_SAME
        | {
            "hidden_act": ("gelu", "relu", ABSENT),
            "hidden_activation": ("relu", None),
            "rope_scaling": (LLAMA3,),
        },
        {**GEMMA_OTHER},
    ),
    "gemma2": kind(
        "Gemma2Config",
        "Gemma2ForCausalLM",
        GEMMA2_SHAPE,
        GEMMA2_SAME | {"attn_logit_softcapping": (0.5, None, ABSENT), "rope_scaling": (LLAMA3,)},
        {**GEMMA2_OTHER},
    ),
    "gemma3_text": kind(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {k: v for k, v in GEMMA2_SHAPE.items() if k != "attn_logit_softcapping"},
        GEMMA2_SAME
        | {
            "sliding_window_pattern": (2, 1, ABSENT),
            "rope_local_base_freq": (30.0, ABSENT),
            "rope_scaling": ({"rope_type": "linear", "factor": 8.0}, LLAMA3),
            "rope_parameters": (
                {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 40.0}},
                {"sliding_attention": {"rope_type": "default", "rope_theta": 40.0}},
            ),
        },
        {k: v for k, v in GEMMA2_OTHER.items() if k != "rope_scaling"}
        | {
            "rope_scaling": ({"type": "linear", "factor": 8.0},),
            "sliding_window_pattern": (0, None),
            "rope_local_base_freq": NUMBERS,
        },
    ),
    "phi3": kind(
        "Phi3Config",
        "Phi3ForCausalLM",
        HEADLESS_SHAPE | {"hidden_size": 32, "pad_token_id": 0},
        {
            "rms_norm_eps": (ABSENT,),
            "rope_theta": (50.0, ABSENT),
            "num_key_value_heads": (1,),
            "hidden_act": ("gelu", ABSENT),
            "sliding_window": (5, None),
            "partial_rotary_factor": (0.5, 0.75, 1.0, ABSENT),
            "rope_scaling": (
                None,
                LONGROPE,
                LONGROPE | {"type": "yarn", "factor": 3.0},
                LONGROPE | {"attention_factor": 1.5},
            ),
            "original_max_position_embeddings": (16, ABSENT),
            "auto_map": ({"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},),
            "full_attn_mod": (1,),
        },
        {k: v for k, v in ROTARY_OTHER.items() if k != "original_max_position_embeddings"}
        | {
            "partial_rotary_factor": (0, 1.5, -1.0, None),
            "rope_scaling": (
                LONGROPE | {"short_factor": [1.0]},
                LONGROPE | {"long_factor": None},
                {"type": "linear", "factor": 2.0},
            ),
            "lm_head_bias": (True,),
            "full_attn_mod": (2,),
        },
    ),
    "granite": kind(
        "GraniteConfig",
        "GraniteForCausalLM",
        HEADLESS_SHAPE,
        HEADLESS
        | {
            "embedding_multiplier": (12.0, 12, ABSENT),
            "residual_multiplier": (0.22, ABSENT),
            "attention_multiplier": (0.0078125, ABSENT),
            "logits_scaling": (8.0, ABSENT),
            "attention_bias": (True,),
            "mlp_bias": (True,),
        },
        ROTARY_OTHER
        | {f"{name}_multiplier": NUMBERS for name in ("embedding", "residual", "attention")}
        | {"logits_scaling": NUMBERS},
    ),
    "olmo2": kind(
        "Olmo2Config",
        "Olmo2ForCausalLM",
        HEADLESS_SHAPE,
        HEADLESS | {"attention_bias": (True, False)},
        ROTARY_OTHER | {"clip_qkv": (None, 8.0)},
    ),
    "gpt2": kind(
        "GPT2Config",
        "GPT2LMHeadModel",
        dict(n_positions=30, n_embd=24, n_layer=1, n_head=3),
        {
            "activation_function": ("relu", "gelu", "silu", "tanh", ABSENT),
            "n_inner": (46, None),
            "layer_norm_epsilon": (1e-2, ABSENT),
            "reorder_and_upcast_attn": (True,),
            "n_ctx": (30,),
            "num_attention_heads": (3,),
            "summary_type": ("last",),
        },
        GPT_OTHER | {"n_head": (5, 0), "num_attention_heads": (4,), "n_inner": (0,)},
    ),
    "gpt_neo": kind(
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        dict(
            max_position_embeddings=30,
            hidden_size=24,
            num_layers=2,
            num_heads=3,
            attention_types=[[["global", "local"], 1]],
            window_size=5,
        ),
        {
            "activation_function": ACTIVATIONS,
            "intermediate_size": (46,),
            "window_size": (2,),
            "attention_types": ([[["local", "global"], 1]],),
            "layer_norm_epsilon": (1e-2, ABSENT),
        },
        GPT_OTHER
        | {
            "window_size": (0, None),
            "attention_types": ([[["global"], 1]], [[["sparse"], 2]], [3], "global", None),
            "attention_layers": (["local", "local"], ["local"]),
        },
    ),
    "gpt_neox": kind(
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        dict(
            max_position_embeddings=64,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=3,
            intermediate_size=46,
            rotary_pct=0.5,
            tie_word_embeddings=False,
        ),
        {
            "hidden_act": ACTIVATIONS,
            "rotary_pct": (0.25, 1.0, ABSENT),
            "rotary_emb_base": (50.0, ABSENT),
            "rope_scaling": ({"type": "linear", "factor": 2.0}, YARN),
            "use_parallel_residual": (False, ABSENT),
            "attention_bias": (False, ABSENT),
            "layer_norm_eps": (1e-2, ABSENT),
        },
        {
            "hidden_act": ("mish", None),
            "layer_norm_eps": NUMBERS,
            "rotary_pct": (*NUMBERS, 0.4, 1.5),
            "rotary_emb_base": NUMBERS,
            "rope_parameters": ({"rope_theta": 40.0}, {"partial_rotary_factor": 0.25}),
            "num_attention_heads": (5, 0),
            "use_parallel_residual": (None, 1),
        },
    ),
    "opt": kind(
        "OPTConfig",
        "OPTForCausalLM",
        dict(
            max_position_embeddings=30,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=3,
            ffn_dim=46,
            pad_token_id=0,
        ),
        {
            "activation_function": ("gelu", ABSENT),
            "word_embed_proj_dim": (24, None),
            "enable_bias": (False, True),
            "_remove_final_layer_norm": (True, False),
            "do_layer_norm_before": (True,),
        },
        {
            "activation_function": ("mish", None),
            "word_embed_proj_dim": (12,),
            "do_layer_norm_before": (False,),
            "layer_norm_elementwise_affine": (False,),
            "num_attention_heads": (5, 0),
        },
    ),
    "gptj": kind(
        "GPTJConfig",
        "GPTJForCausalLM",
        dict(n_positions=30, n_embd=24, n_layer=1, n_head=3, rotary_dim=4),
        {
            "activation_function": ACTIVATIONS,
            "rotary_dim": (8, 2),
            "n_inner": (46,),
            "layer_norm_epsilon": (1e-2, ABSENT),
            "rotary": (True,),
        },
        GPT_OTHER | {"rotary_dim": (None, 5, 10, 0), "rotary": (False,), "n_head": (5,)},
    ),
    "bert": kind(
        "BertConfig",
        "BertForMaskedLM",
        BERT_SHAPE,
        BERT_SAME,
        {**BERT_OTHER},
    ),
    "roberta": kind(
        "RobertaConfig",
        "RobertaForMaskedLM",
        BERT_SHAPE,
        ROBERTA_SAME,
        {**BERT_OTHER, **ROBERTA_OTHER},
    ),
    "xlm-roberta": kind(
        "XLMRobertaConfig",
        "XLMRobertaForMaskedLM",
        BERT_SHAPE,
        ROBERTA_SAME,
        {**BERT_OTHER, **ROBERTA_OTHER},
    ),
    "camembert": kind(
        "CamembertConfig",
        "CamembertForMaskedLM",
        BERT_SHAPE,
        ROBERTA_SAME,
        {**BERT_OTHER, **ROBERTA_OTHER},
    ),
    "distilbert": kind(
        "DistilBertConfig",
        "DistilBertForMaskedLM",
        dict(dim=24, n_layers=1, n_heads=3, hidden_dim=46, max_position_embeddings=32),
        {
            "activation": ACTIVATIONS,
            "sinusoidal_pos_embds": (True, False),
            "num_attention_heads": (3,),
            "hidden_dim": (50,),
            "tie_weights_": (True,),
        },
        {
            "activation": ("mish", None),
            "n_heads": (5, 0),
            "hidden_size": (25,),
            "layer_norm_eps": (1e-5,),
        },
    ),
    "bart": kind(
        "BartConfig",
        "BartForConditionalGeneration",
        dict(
            d_model=24,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=4,
            encoder_ffn_dim=46,
            decoder_ffn_dim=38,
            max_position_embeddings=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        {
            "activation_function": ACTIVATIONS,
            "scale_embedding": (True, False, ABSENT),
            "num_hidden_layers": (1,),
            "forced_bos_token_id": (0, None),
            "normalize_before": (False,),
            "encoder_layerdrop": (0.1,),
            "num_beams": (4,),
        },
        {
            "activation_function": ("mish", None),
            "normalize_before": (True,),
            "add_final_layer_norm": (True,),
            "normalize_embedding": (False,),
            "static_position_embeddings": (True,),
            "extra_pos_embeddings": (0,),
            "num_hidden_layers": (2,),
            "decoder_attention_heads": (5, 0),
            "eos_token_id": ([2, 3], 61, -1),
            "decoder_start_token_id": (61, None),
            "is_encoder_decoder": (False,),
        },
    ),
    "t5": kind("T5Config", "T5ForConditionalGeneration", T5_SHAPE, T5_SAME, T5_OTHER),
    "mt5": kind(
        "MT5Config",
        "MT5ForConditionalGeneration",
        T5_SHAPE,
        T5_KIN | {"tie_word_embeddings": (True, False)},
        T5_OTHER | {"tie_word_embeddings": (None,)},
    ),
    "umt5": kind(
        "UMT5Config",
        "UMT5ForConditionalGeneration",
        T5_SHAPE,
        T5_KIN | {"tie_word_embeddings": (True, False)},
        T5_OTHER | {"tie_word_embeddings": (None,)},
    ),
}


def raw_config(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json."""
    model_type = name.partition(",")[0]
    raw = {"model_type": model_type, **KINDS[name].shape, **changes}
    return {key: value for key, value in raw.items() if value is not ABSENT}


def torch_model(name: str, raw: Mapping[str, Any]) -> Any:
    """What transformers makes of it, with random weights; None if it refuses."""
    torch.manual_seed(0)
    try:
        config = getattr(transformers, KINDS[name].config).from_dict(dict(raw))
        return parity.shaken(getattr(transformers, KINDS[name].model)(config), 0.1)
    except Exception:
        return None


def our_base(raw: dict[str, Any], tensors: Mapping[str, Any], folder: Path) -> registry.Base:
    """What `load` makes of a folder with this config.json and these tensors."""
    arrays = {key: value.detach().numpy().copy() for key, value in tensors.items()}
    shapes = {key: value.shape for key, value in arrays.items()}
    weights = Weights(raw, tuple(arrays), arrays.__getitem__, shapes, None, str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "open_weights", lambda _: weights)
        return registry.load(str(folder))


PROGRAMS: dict[Any, Any] = {}
"""One for each model: configurations that mean the same are compiled once."""


def our_logits(base: registry.Base, inputs: Inputs) -> np.ndarray:
    run = PROGRAMS.setdefault(base.model, jax.jit(base.model.apply))
    return np.asarray(run({"params": base.params}, inputs))


@cache
def plain_tensors(name: str) -> dict[str, Any]:
    """Those of the small model with nothing changed."""
    return torch_model(name, raw_config(name, {})).state_dict()


def verdict(name: str, changes: Mapping[str, Any], folder: Path) -> str:
    """"same" or "refused"; fails where neither is so."""
    raw = raw_config(name, changes)
    try:
        our_base(dict(raw), plain_tensors(name), folder)
    except ConfigError as error:
        text = str(error)
        assert text.startswith(f"{folder}/config.json: ") and "\n" not in text, text
        assert any(key in text for key in changes), text
        return "refused"
    except WeightsError:
        pass  # these settings are of other tensors
    theirs = torch_model(name, raw)
    assert theirs is not None, f"transformers refuses {changes}"
    base = our_base(dict(raw), theirs.state_dict(), folder)
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, parity.VOCABULARY, (2, LENGTH)).astype(np.int32)
    target = tokens[:, :5] if base.model.kind == "seq2seq" else None
    inputs = Inputs(jnp.asarray(tokens), mask=jnp.ones(tokens.shape, bool), target=target)
    more = {} if target is None else {"decoder_input_ids": torch.tensor(target).long()}
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor(tokens).long(), **more).logits.numpy()
    assert_close(our_logits(base, inputs), wanted, 1e-5)
    return "same"




@pytest.mark.parametrize("name", KINDS)
def test_what_has_to_load_is_transformers(name: str, tmp_path: Path):
    for key, values in {"vocab_size": (parity.VOCABULARY,), **KINDS[name].same}.items():
        for value in values:
            assert verdict(name, {key: value}, tmp_path) == "same", (key, value)


@pytest.mark.parametrize("name", KINDS)
def test_what_may_be_refused_is_transformers_or_named(name: str, tmp_path: Path):
    for key, values in KINDS[name].other.items():
        for value in values:
            assert verdict(name, {key: value}, tmp_path) in ("same", "refused")


def test_there_are_enough_of_them():
    each = [v for k in KINDS.values() for table in (k.same, k.other) for v in table.values()]
    assert sum(map(len, each)) >= 250


@st.composite
def combinations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A family, and two to four keys of its tables with a value each."""
    name = draw(st.sampled_from(sorted(KINDS)))
    both = KINDS[name].same.items(), KINDS[name].other.items()
    values = {key: [] for table in both for key, _ in table}
    for table in both:
        for key, some in table:
            values[key] += some
    keys = draw(st.lists(st.sampled_from(sorted(values)), min_size=2, max_size=4, unique=True))
    return name, {key: draw(st.sampled_from(values[key])) for key in keys}


@settings(derandomize=True, max_examples=40, deadline=None, database=None)
@given(drawn=combinations())
def test_combinations_are_transformers_or_named(
    drawn: tuple[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
):
    verdict(*drawn, tmp_path_factory.getbasetemp())
