"""Keys of Llama and its kin."""

from mend_jax.models.declared.common import CAUSAL, activation
from mend_jax.models.settings import (
    Declared,
    Setting,
    count,
    count_or_null,
    flag,
    object_or_null,
    one_of,
    positive,
    positive_or_null,
)

_ROTARY = {
    **CAUSAL,
    "vocab_size": count(32000),
    "hidden_size": count(4096),
    "intermediate_size": count(11008),
    "num_hidden_layers": count(32),
    "num_attention_heads": count(32),
    "num_key_value_heads": count_or_null(None),
    "head_dim": count_or_null(None),
    "hidden_act": activation("silu"),
    "max_position_embeddings": count(2048),
    "rms_norm_eps": positive(1e-6),
    "rope_theta": positive(10000.0),
    "rope_scaling": object_or_null(),
    "rope_parameters": object_or_null(),
    "partial_rotary_factor": one_of(None, 1, 1.0),
    "rope_interleaved": one_of(False),
    "attention_bias": flag(False),
    "mlp_bias": flag(False),
    "tie_word_embeddings": flag(False),
}
_OWN_PHI3 = "modeling_phi3.Phi3ForCausalLM"
_UNBIASED = {"attention_bias": one_of(False), "mlp_bias": one_of(False)}

_WINDOWED = {
    "vocab_size": count(151936),
    "intermediate_size": count(22016),
    "num_key_value_heads": count_or_null(32),
    "max_position_embeddings": count(32768),
    "use_sliding_window": flag(False),
    "sliding_window": count_or_null(4096),
    "max_window_layers": count(28, least=0),
    "layer_types": object_or_null(list),
    "use_mrope": one_of(False),
}

LLAMA = Declared(
    "llama",
    _ROTARY,
    {"is_llama_config": "says what model_type says"},
    {},
    ("LlamaForCausalLM", "LLaMAForCausalLM"),
)
_MISTRAL = {
    **_ROTARY,
    **_UNBIASED,
    "intermediate_size": count(14336),
    "num_key_value_heads": count(8),
    "max_position_embeddings": count(131072),
    "sliding_window": count_or_null(4096),
}
MISTRAL = Declared("mistral", _MISTRAL, {}, {}, ("MistralForCausalLM",))
MINISTRAL = Declared(
    "ministral",
    {**_MISTRAL, "layer_types": object_or_null(list)},
    {},
    {},
    ("MinistralForCausalLM",),
)
QWEN2 = Declared(
    "qwen2",
    {
        **{k: v for k, v in _ROTARY.items() if k != "attention_bias"},
        **_WINDOWED,
        "mlp_bias": one_of(False),
    },
    {"attention_bias": "Qwen2's queries, keys and values have biases in any case"},
    {},
    ("Qwen2ForCausalLM",),
)
QWEN3 = Declared(
    "qwen3",
    {**_ROTARY, **_WINDOWED, "mlp_bias": one_of(False), "head_dim": count(128)},
    {},
    {},
    ("Qwen3ForCausalLM",),
)
SEED_OSS = Declared(
    "seed_oss",
    {
        **_ROTARY,
        "vocab_size": count(155136),
        "intermediate_size": count(27648),
        "num_hidden_layers": count(64),
        "num_attention_heads": count(80),
        "num_key_value_heads": count_or_null(8),
        "head_dim": count_or_null(128),
        "max_position_embeddings": count(524288),
        "attention_bias": flag(True),
        "attention_out_bias": flag(False),
    },
    {},
    {},
    ("SeedOssForCausalLM",),
)
SMOLLM3 = Declared(
    "smollm3",
    {
        **{k: v for k, v in _ROTARY.items() if k != "head_dim"},
        "vocab_size": count(128256),
        "hidden_size": count(2048),
        "num_hidden_layers": count(36),
        "num_attention_heads": count(16),
        "num_key_value_heads": count_or_null(4),
        "max_position_embeddings": count(32768),
        "rope_theta": positive(2000000.0),
        "use_sliding_window": flag(False),
        "sliding_window": count_or_null(None),
        "layer_types": object_or_null(list),
        "no_rope_layers": object_or_null(list),
        "no_rope_layer_interval": count(4),
        "tie_word_embeddings": flag(True),
    },
    {"max_window_layers": "is of Qwen2's class; SmolLM3's reads layer_types"},
    {},
    ("SmolLM3ForCausalLM",),
)
GRANITE = Declared(
    "granite",
    {
        **{k: v for k, v in _ROTARY.items() if k != "head_dim"},
        "embedding_multiplier": positive(1.0),
        "residual_multiplier": positive(1.0),
        "attention_multiplier": positive(1.0),
        "logits_scaling": positive(1.0),
    },
    {},
    {},
    ("GraniteForCausalLM",),
)
OLMO2 = Declared(
    "olmo2",
    {
        **{k: v for k, v in _ROTARY.items() if k != "head_dim"},
        "vocab_size": count(50304),
        "rms_norm_eps": positive(1e-5),
        "mlp_bias": one_of(False),
    },
    {},
    {},
    ("Olmo2ForCausalLM",),
)
_GEMMA = {
    **_ROTARY,
    "vocab_size": count(256000),
    "max_position_embeddings": count(8192),
    "head_dim": count(256),
    "mlp_bias": one_of(False),
    "tie_word_embeddings": flag(True),
    "use_bidirectional_attention": one_of(None, False),
}
GEMMA = Declared(
    "gemma",
    {
        **_GEMMA,
        "hidden_size": count(3072),
        "intermediate_size": count(24576),
        "num_hidden_layers": count(28),
        "num_attention_heads": count(16),
        "num_key_value_heads": count(16),
        "hidden_act": activation("gelu_pytorch_tanh"),
    },
    {"hidden_activation": "is of later files; transformers' class reads hidden_act"},
    {},
    ("GemmaForCausalLM",),
)
_GEMMA2 = {
    **{key: setting for key, setting in _GEMMA.items() if key != "hidden_act"},
    "hidden_size": count(2304),
    "intermediate_size": count(9216),
    "num_hidden_layers": count(26),
    "num_attention_heads": count(8),
    "num_key_value_heads": count(4),
    "hidden_activation": activation("gelu_pytorch_tanh"),
    "query_pre_attn_scalar": count(256),
    "sliding_window": count(4096),
    "layer_types": object_or_null(list),
    "final_logit_softcapping": positive_or_null(30.0),
    "attn_logit_softcapping": positive_or_null(50.0),
}
_GEMMA2_IGNORED = {
    "hidden_act": "is of the first files; transformers' class reads hidden_activation",
    "cache_implementation|sliding_window_size": "is how a cache is laid out",
}
GEMMA2 = Declared("gemma2", _GEMMA2, _GEMMA2_IGNORED, {}, ("Gemma2ForCausalLM",))
GEMMA3 = Declared(
    "gemma3_text",
    {
        **_GEMMA2,
        "vocab_size": count(262208),
        "max_position_embeddings": count(131072),
        "rope_theta": positive(1e6),
        "rope_local_base_freq": positive(1e4),
        "use_bidirectional_attention": one_of(False, None),
        "sliding_window_pattern": count(6),
        "final_logit_softcapping": positive_or_null(None),
        "attn_logit_softcapping": one_of(None),
    },
    {**_GEMMA2_IGNORED, "_sliding_window_pattern": "is what layer_types was made of"},
    {},
    ("Gemma3ForCausalLM",),
)
PHI3 = Declared(
    "phi3",
    {
        **{key: setting for key, setting in _ROTARY.items() if key != "head_dim"},
        **_UNBIASED,
        "vocab_size": count(32064),
        "hidden_size": count(3072),
        "intermediate_size": count(8192),
        "max_position_embeddings": count(4096),
        "original_max_position_embeddings": count(4096),
        "rms_norm_eps": positive(1e-5),
        "partial_rotary_factor": positive(1.0),
        "sliding_window": count_or_null(None),
        "full_attn_mod": one_of(1),
        "interpolate_factor": one_of(1),
        "lm_head_bias": one_of(False),
        "auto_map": Setting(
            None,
            lambda x: x is None
            or (isinstance(x, dict) and x.get("AutoModelForCausalLM") == _OWN_PHI3),
            f"null or {_OWN_PHI3}, which transformers has too, is",
        ),
    },
    {},
    {},
    ("Phi3ForCausalLM",),
)
