"""Keys of GPT-2, GPT-J, GPT-Neo, GPT-NeoX and OPT."""

from mend_jax.models.declared.common import CAUSAL, activation
from mend_jax.models.settings import (
    Declared,
    count,
    count_or_null,
    flag,
    object_or_null,
    one_of,
    positive,
)

_GPT = {
    **CAUSAL,
    "activation_function": activation("gelu_new"),
    "layer_norm_epsilon": positive(1e-5),
    "scale_attn_weights": one_of(True),
}
_GPT2_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_CONTEXT = {"n_ctx": "is how long the causal mask was; it is made as long as the text"}

GPT2 = Declared(
    "gpt2",
    {
        **_GPT,
        "vocab_size": count(50257),
        "n_positions": count(1024),
        "n_embd": count(768),
        "n_layer": count(12),
        "n_head": count(12),
        "n_inner": count_or_null(None),
        "scale_attn_by_inverse_layer_idx": one_of(False),
        "tie_word_embeddings": one_of(True),
    },
    _CONTEXT,
    _GPT2_NAMES,
    ("GPT2LMHeadModel",),
)
GPTJ = Declared(
    "gptj",
    {
        **_GPT,
        "vocab_size": count(50400),
        "n_positions": count(2048),
        "n_embd": count(4096),
        "n_layer": count(28),
        "n_head": count(16),
        "n_inner": count_or_null(None),
        "rotary": one_of(True),
        "rotary_dim": count(64),
        "tie_word_embeddings": one_of(False),
    },
    _CONTEXT,
    _GPT2_NAMES,
    ("GPTJForCausalLM",),
)
GPT_NEO = Declared(
    "gpt_neo",
    {
        **_GPT,
        "vocab_size": count(50257),
        "max_position_embeddings": count(2048),
        "hidden_size": count(2048),
        "num_layers": count(24),
        "num_heads": count(16),
        "intermediate_size": count_or_null(None),
        "window_size": count(256),
        "attention_types": object_or_null(list),
        "attention_layers": object_or_null(list),
        "tie_word_embeddings": one_of(True),
    },
    {},
    {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
    ("GPTNeoForCausalLM",),
)
GPT_NEOX = Declared(
    "gpt_neox",
    {
        **CAUSAL,
        "vocab_size": count(50432),
        "hidden_size": count(6144),
        "num_hidden_layers": count(44),
        "num_attention_heads": count(64),
        "intermediate_size": count(24576),
        "hidden_act": activation("gelu"),
        "rotary_pct": positive(0.25),
        "rotary_emb_base": positive(10000.0),
        "rope_parameters": object_or_null(),
        "rope_scaling": object_or_null(),
        "max_position_embeddings": count(2048),
        "layer_norm_eps": positive(1e-5),
        "use_parallel_residual": flag(True),
        "attention_bias": flag(True),
        "tie_word_embeddings": flag(False),
    },
    {},
    {},
    ("GPTNeoXForCausalLM",),
)
OPT = Declared(
    "opt",
    {
        **CAUSAL,
        "vocab_size": count(50272),
        "hidden_size": count(768),
        "num_hidden_layers": count(12),
        "num_attention_heads": count(12),
        "ffn_dim": count(3072),
        "max_position_embeddings": count(2048),
        "word_embed_proj_dim": count_or_null(None),
        "activation_function": activation("relu"),
        "do_layer_norm_before": one_of(True),
        "_remove_final_layer_norm": flag(False),
        "enable_bias": flag(True),
        "layer_norm_elementwise_affine": one_of(True),
        "tie_word_embeddings": one_of(True),
    },
    {},
    {},
    ("OPTForCausalLM",),
)
