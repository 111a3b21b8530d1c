"""Configurations of the GPTs and of OPT."""

from typing import Any

from kinds import ABSENT, ACTIVATIONS, NUMBERS, kind
from kinds_llama import YARN

GPT_OTHER: dict[str, tuple[Any, ...]] = {
    "activation_function": ("mish", "quick_gelu", None),
    "layer_norm_epsilon": NUMBERS,
    "scale_attn_weights": (False, None),
    "scale_attn_by_inverse_layer_idx": (True,),
}

KINDS = {
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
}
