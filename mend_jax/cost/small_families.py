"""A small model of every architecture, by what its config.json says: to compile, and to compare.

Sizes are multiples of 16, as GPUs multiply, of no prime but 2, 5, 7 and 17. So in a program with 3
or 11 texts or tokens, an array of as many numbers as a kernel has is of a kernel.
"""

from typing import Any

from mend_jax.cost.workload import Sizes

VOCABULARY = 272
SIZES = Sizes(length=11, answers=3, rank=48)
"""Of the texts that these models are given, and of an editor."""

_ROTARY: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
_GEMMA2 = {"sliding_window": 5, "query_pre_attn_scalar": 16, "head_dim": 16}
_BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 320,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "num_labels": 1,
    "id2label": {"0": "LABEL_0"},
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 320,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "relative_attention_num_buckets": 8,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
_GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_positions": 64,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 320,
    "layer_norm_epsilon": 1e-5,
}


def _classifier(architecture: str, **more: Any) -> dict[str, Any]:
    return _BERT | {"architectures": [f"{architecture}ForSequenceClassification"]} | more


SMALL: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "bart": {
        "vocab_size": VOCABULARY,
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 320,
        "decoder_ffn_dim": 320,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    },
    "gpt2": _GPT,
    "gptj": _GPT | {"rotary_dim": 8, "tie_word_embeddings": False},
    "gpt_neo": {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 320,
        "max_position_embeddings": 64,
        "window_size": 5,
        "attention_types": [[["global", "local"], 1]],
    },
    "gpt_neox": {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 320,
        "max_position_embeddings": 64,
        "rotary_pct": 0.5,
        "tie_word_embeddings": False,
    },
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 320,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 64,
        "pad_token_id": 0,
    },
    **{
        name: _ROTARY
        for name in ("llama", "mistral", "qwen2", "seed_oss", "granite", "olmo2", "phi3")
    },
    "qwen3": _ROTARY | {"head_dim": 16},
    "mixtral": _ROTARY | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": _ROTARY
    | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 80},
    "ministral": _ROTARY | {"sliding_window": 5},
    "smollm3": _ROTARY | {"no_rope_layer_interval": 2},
    "gemma": _ROTARY | {"tie_word_embeddings": True, "head_dim": 16},
    "gemma2": _ROTARY | _GEMMA2 | {"tie_word_embeddings": True},
    "gemma3_text": _ROTARY | _GEMMA2 | {"tie_word_embeddings": True},
    "bert": _classifier("Bert"),
    "roberta": _classifier("Roberta"),
    "xlm-roberta": _classifier("XLMRoberta"),
    "camembert": _classifier("Camembert"),
    "distilbert": {
        "architectures": ["DistilBertForSequenceClassification"],
        "vocab_size": VOCABULARY,
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 320,
        "max_position_embeddings": 64,
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "pad_token_id": 0,
    },
}
SMALL = {name: {"model_type": name} | config for name, config in SMALL.items()}
"""Hugging Face's `model_type` -> a config.json."""
