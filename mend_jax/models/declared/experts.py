"""Keys of mixtures of experts."""

from mend_jax.models.declared.llama import MISTRAL, QWEN3
from mend_jax.models.settings import (
    Declared,
    count,
    count_or_null,
    flag,
    object_or_null,
    positive,
)

_ROUTER = {
    "output_router_logits": "says what else a call returns",
    "router_aux_loss_coef|router_jitter_noise": "is of training only",
}
_NAMES = {"num_local_experts": "num_experts"}

MIXTRAL = Declared(
    "mixtral",
    {
        **MISTRAL.read,
        "rms_norm_eps": positive(1e-5),
        "rope_theta": positive(1e6),
        "sliding_window": count_or_null(None),
        "num_experts": count(8),
        "num_experts_per_tok": count(2),
    },
    _ROUTER,
    _NAMES,
    ("MixtralForCausalLM",),
)
QWEN3_MOE = Declared(
    "qwen3_moe",
    {
        **{k: v for k, v in QWEN3.read.items() if k not in ("max_window_layers", "layer_types")},
        "hidden_size": count(2048),
        "intermediate_size": count(6144),
        "num_hidden_layers": count(24),
        "num_key_value_heads": count(4),
        "head_dim": count(None),
        "num_experts": count(128),
        "num_experts_per_tok": count(8),
        "moe_intermediate_size": count(768),
        "norm_topk_prob": flag(False),
        "decoder_sparse_step": count(1),
        "mlp_only_layers": object_or_null(list),
    },
    {**_ROUTER, "max_window_layers": "is of Qwen2's class; Qwen3-MoE's has one window"},
    _NAMES,
    ("Qwen3MoeForCausalLM",),
)
