"""Configurations of mixtures of experts."""

from typing import Any

from kinds import ABSENT, SIZES, kind
from kinds_llama import LISTS, LLAMA_SHAPE, ROTARY_KIN, ROTARY_OTHER

SHAPE = LLAMA_SHAPE | {"intermediate_size": 24, "num_experts_per_tok": 2}
"""PyTorch multiplies experts together where rows are of 16 bytes."""
SAME: dict[str, tuple[Any, ...]] = ROTARY_KIN | {
    "num_experts_per_tok": (1, 4),
    "num_experts": (3,),
    "num_local_experts": (3,),
    "hidden_act": ("gelu", ABSENT),
    "output_router_logits": (True, False),
    "router_aux_loss_coef": (0.5,),
}
OTHER: dict[str, tuple[Any, ...]] = ROTARY_OTHER | {
    "num_experts_per_tok": (5, *SIZES),
    "num_experts": (0, None),
    "layer_types": LISTS,
}

KINDS = {
    "mixtral": kind(
        "MixtralConfig",
        "MixtralForCausalLM",
        SHAPE | {"num_local_experts": 4},
        {key: values for key, values in SAME.items() if key != "num_experts"}
        | {"sliding_window": (5, None, ABSENT), "router_jitter_noise": (0.1,)},
        OTHER | {"use_sliding_window": (True,)},
    ),
    "qwen3_moe": kind(
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        SHAPE | {"num_experts": 4, "moe_intermediate_size": 12, "num_hidden_layers": 2},
        {key: values for key, values in SAME.items() if key != "num_local_experts"}
        | {
            "attention_bias": (True, False),
            "moe_intermediate_size": (8,),
            "norm_topk_prob": (True, False, ABSENT),
            "decoder_sparse_step": (1, 2, ABSENT),
            "mlp_only_layers": ([0], [1, 7], [], None),
            "sliding_window": (5, None, ABSENT),
            "max_window_layers": (1,),
        },
        OTHER
        | {
            "norm_topk_prob": (None, 1),
            "decoder_sparse_step": SIZES,
            "mlp_only_layers": (["0"], "0", 0),
            "num_local_experts": (4, 3),
        },
    ),
    "qwen3_moe, windowed": kind(
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        SHAPE | {"num_experts": 4, "moe_intermediate_size": 12}
        | {"use_sliding_window": True, "sliding_window": 5},
        {"sliding_window": (5, 3, None), "max_window_layers": (0, 1, ABSENT)},
        {"sliding_window": (0, -1), "layer_types": LISTS},
    ),
}
