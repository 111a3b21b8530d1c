"""What config.json files on the Hugging Face hub say of the paper's base models and two later ones.

Enough to know a model's shapes without network or files: `mend-jax plan` counts from them, and
the benchmark makes random weights of them. Keys and spellings are Hugging Face's; keys that change
no shape and no computation are left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

from mend_jax.files import read_json
from mend_jax.option_types import accepted_by
from mend_jax.typed import checked
from mend_jax.weights import WeightsError
from mend_jax.weights.source import check_layers


def _t5(d_model: int, d_ff: int, layers: int, heads: int, gated: bool) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": d_model,
        "d_kv": 64,
        "d_ff": d_ff,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "tie_word_embeddings": not gated,
        "relative_attention_num_buckets": 32,
        "layer_norm_epsilon": 1e-6,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def _gpt2(n_embd: int, n_layer: int, n_head: int) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_ctx": 1024,
        "n_embd": n_embd,
        "n_layer": n_layer,
        "n_head": n_head,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "google/t5-small-ssm-nq": _t5(512, 1024, 8, 6, gated=True),
    "google/t5-large-ssm-nq": _t5(1024, 4096, 24, 16, gated=False),
    "google/t5-xl-ssm-nq": _t5(2048, 5120, 24, 32, gated=True),
    "google/t5-xxl-ssm-nq": _t5(4096, 10240, 24, 64, gated=True),
    "facebook/bart-base": {
        "model_type": "bart",
        "vocab_size": 50265,
        "d_model": 768,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072,
        "encoder_attention_heads": 12,
        "decoder_attention_heads": 12,
        "max_position_embeddings": 1024,
        "activation_function": "gelu",
        "scale_embedding": False,
        "normalize_before": False,
        "add_final_layer_norm": False,
        "normalize_embedding": True,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_bos_token_id": 0,
    },
    "bert-base-uncased": {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],  # the paper's: one logit on the pooler
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    },
    "distilgpt2": _gpt2(768, 6, 12),
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "EleutherAI/gpt-neo-2.7B": {
        "model_type": "gpt_neo",
        "vocab_size": 50257,
        "hidden_size": 2560,
        "num_layers": 32,
        "num_heads": 20,
        "intermediate_size": None,
        "max_position_embeddings": 2048,
        "window_size": 256,
        "attention_types": [[["global", "local"], 16]],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
    },
    "EleutherAI/gpt-j-6B": {
        "model_type": "gptj",
        "vocab_size": 50400,
        "n_positions": 2048,
        "n_embd": 4096,
        "n_layer": 28,
        "n_head": 16,
        "n_inner": None,
        "rotary_dim": 64,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
    },
    "meta-llama/Llama-3.1-8B": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
    },
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rope_theta": 100000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
}


class Named(TypedDict):
    """What every config.json says."""

    model_type: str


_MOST_TENSORS = 100_000


def config_of(name: str) -> Mapping[str, Any]:
    """The config.json of a built-in model, of a folder, or of the file itself.

    Raises:
      ValueError: neither built in nor there; a file that is not a model's config.json, or has more
        blocks than any model.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{name!r} is neither a folder with a config.json nor one of the built-in models: "
            f"{', '.join(PUBLISHED)}"
        )
    config = read_json(path, WeightsError)
    whose = f"{path} names no model_type: is it a model's config.json?"
    checked(Named, config, whose, WeightsError)
    check_layers(config, _MOST_TENSORS, str(path))
    return config


PublishedModel = Annotated[str, accepted_by(config_of)]
"""An option: one of these, or a folder."""
