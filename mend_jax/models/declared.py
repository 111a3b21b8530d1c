"""What the config.json of each model type may say: keys, transformers' defaults, what is possible.

One table a model type, after transformers' config class of that name (5.x); `settings.settle`
reads by them. A value that is not in its table's reach is not implemented.
"""

from mend_jax.models.layers import ACTIVATIONS
from mend_jax.models.settings import (
    Declared,
    Setting,
    count,
    count_or_null,
    flag,
    object_or_null,
    one_of,
    positive,
)


def _activation(default: str, *others: str) -> Setting:
    return one_of(default, *(name for name in ACTIVATIONS if name != default), *others)


_GATED = tuple(f"gated-{name}" for name in ACTIVATIONS)

_CAUSAL = {"is_encoder_decoder": one_of(False)}
_SEQ2SEQ = {"is_encoder_decoder": one_of(True)}

# ------------------------------------------------------------------- Llama and its kin

_ROTARY = {
    **_CAUSAL,
    "vocab_size": count(32000),
    "hidden_size": count(4096),
    "intermediate_size": count(11008),
    "num_hidden_layers": count(32),
    "num_attention_heads": count(32),
    "num_key_value_heads": count_or_null(None),
    "head_dim": count_or_null(None),
    "hidden_act": _activation("silu"),
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

# ------------------------------------------------------------------- GPTs

_GPT = {
    **_CAUSAL,
    "activation_function": _activation("gelu_new"),
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

# ------------------------------------------------------------------- encoders and decoders

BERT = Declared(
    "bert",
    {
        **_CAUSAL,
        "vocab_size": count(30522),
        "hidden_size": count(768),
        "num_hidden_layers": count(12),
        "num_attention_heads": count(12),
        "intermediate_size": count(3072),
        "max_position_embeddings": count(512),
        "type_vocab_size": count(2),
        "hidden_act": _activation("gelu"),
        "layer_norm_eps": positive(1e-12),
        "position_embedding_type": one_of("absolute"),
        "problem_type": one_of(None, "single_label_classification"),
        "tie_word_embeddings": one_of(True),
        "num_labels": count_or_null(None),
        "id2label": object_or_null(),
    },
    {},
    {},
    (
        "BertForSequenceClassification",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertModel",
    ),
)
BART = Declared(
    "bart",
    {
        **_SEQ2SEQ,
        "vocab_size": count(50265),
        "d_model": count(1024),
        "encoder_layers": count(12),
        "decoder_layers": count(12),
        "encoder_attention_heads": count(16),
        "decoder_attention_heads": count(16),
        "encoder_ffn_dim": count(4096),
        "decoder_ffn_dim": count(4096),
        "max_position_embeddings": count(1024),
        "activation_function": _activation("gelu"),
        "scale_embedding": flag(False),
        "tie_word_embeddings": one_of(True),
        "eos_token_id": count(2, least=0),
        "decoder_start_token_id": count(2, least=0),
        "forced_bos_token_id": count_or_null(None, least=0),
        "forced_eos_token_id": count_or_null(2, least=0),
        "force_bos_token_to_be_generated": one_of(False),
        "normalize_before": one_of(False),
        "normalize_embedding": one_of(True),
        "add_final_layer_norm": one_of(False),
        "add_bias_logits": one_of(False),
        "static_position_embeddings": one_of(False),
        "extra_pos_embeddings": one_of(2),
    },
    {"(grapheme|phoneme)_chars": "are alphabets, which the tokenizer reads"},
    {
        "num_attention_heads": "encoder_attention_heads",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
    },
    ("BartForConditionalGeneration", "BartModel"),
)
_T5 = {
    **_SEQ2SEQ,
    "vocab_size": count(32128),
    "d_model": count(512),
    "d_kv": count(64),
    "d_ff": count(2048),
    "num_layers": count(6),
    "num_decoder_layers": count_or_null(None),
    "num_heads": count(8),
    "relative_attention_num_buckets": count(32, least=4),
    "relative_attention_max_distance": count(128),
    "layer_norm_epsilon": positive(1e-6),
    "feed_forward_proj": _activation("relu", *_GATED),
    "dense_act_fn": one_of(None, *ACTIVATIONS),
    "is_gated_act": one_of(None, True, False),
    "tie_word_embeddings": flag(True),
    "scale_decoder_outputs": one_of(None, True, False),
    "pad_token_id": count(0, least=0),
    "eos_token_id": count(1, least=0),
    "decoder_start_token_id": count_or_null(None, least=0),
}
_T5_POSITIONS = {"n_positions": "T5 has any number of positions"}
_T5_NAMES = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
T5 = Declared(
    "t5", _T5, _T5_POSITIONS, _T5_NAMES, ("T5ForConditionalGeneration", "T5WithLMHeadModel")
)
_MT5 = {
    **_T5,
    "vocab_size": count(250112),
    "d_ff": count(1024),
    "num_layers": count(8),
    "num_heads": count(6),
    "feed_forward_proj": one_of("gated-gelu", *ACTIVATIONS, *_GATED),
    "decoder_start_token_id": count(0, least=0),
}
UMT5 = Declared("umt5", _MT5, _T5_POSITIONS, _T5_NAMES, ("UMT5ForConditionalGeneration",))
MT5 = Declared(
    "mt5",
    {key: setting for key, setting in _MT5.items() if key != "scale_decoder_outputs"},
    {**_T5_POSITIONS, "scale_decoder_outputs": "is of T5's; mT5's class scales nothing"},
    _T5_NAMES,
    ("MT5ForConditionalGeneration",),
)
