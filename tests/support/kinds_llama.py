"""Configurations of Llama and its kin: rotary positions, RMS norms, gated MLPs."""

from typing import Any

from kinds import ABSENT, NUMBERS, SIZES, kind

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0, 1.5, 2.0, 2.5],
    "long_factor": [2.0, 3.0, 9.0, 9.5],
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
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
}
