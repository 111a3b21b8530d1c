"""GGUF files of each architecture, written as llama.cpp's converter writes them from Hugging Face's
weights."""

from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import parity
import torch
import transformers

from mend_jax.weights.gguf_kinds import KINDS

SHAPE: dict[str, Any] = dict(
    vocab_size=parity.VOCABULARY,
    hidden_size=32,
    intermediate_size=46,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    pad_token_id=0,
    eos_token_id=None,
)
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
}


class Made(NamedTuple):
    """name: of transformers' classes. own: of its config. keys: what the converter writes of it,
    beside what it writes of all."""

    name: str
    own: dict[str, Any]
    keys: dict[str, Any] = {}


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
SCALED = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
WINDOWED = {"attention.sliding_window": 5}
MADE = {
    "llama": Made("Llama", {}),
    "qwen2": Made(
        "Qwen2",
        {"rope_parameters": YARN | {"rope_theta": 1e4}},
        SCALED | {"rope.scaling.original_context_length": 16},
    ),
    "qwen3": Made("Qwen3", {"head_dim": 10}),
    "gemma": Made("Gemma", {"head_dim": 10}),
    "gemma2": Made(
        "Gemma2",
        {"head_dim": 10, "sliding_window": 5, "query_pre_attn_scalar": 10}
        | {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5},
        WINDOWED | {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5},
    ),
    "gemma3": Made(
        "Gemma3Text",
        {"head_dim": 10, "sliding_window": 5, "query_pre_attn_scalar": 10}
        | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        WINDOWED
        | {"rope.freq_base": 1e6, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
}


def torch_model(made: Made) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{made.name}Config")(**(SHAPE | made.own))
    model = getattr(transformers, f"{made.name.removesuffix('Text')}ForCausalLM")
    return parity.shaken(model(config), 0.1)


def permuted(array: np.ndarray, heads: int) -> np.ndarray:
    """What the converter does to Llama's queries and keys."""
    halves = array.reshape(heads, 2, -1, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def write(path: Path, name: str, model: Any, **how: Any) -> Path:
    """As llama.cpp's converter does."""
    kind, config = KINDS[name], model.config
    writer = gguf.GGUFWriter(path, name, **how)
    head = getattr(config, "head_dim", None) or 8
    keys = {
        "block_count": 2,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 46,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": parity.VOCABULARY,
    }
    for key, value in (keys | MADE[name].keys).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](f"{name}.{key}", value)
    names = gguf.get_tensor_name_map(ARCHITECTURES[name], 2)
    for theirs, tensor in model.state_dict().items():
        if theirs == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if kind.norm_offset and theirs.endswith("norm.weight"):
            array = array + np.float32(1)
        if kind.permuted and ("q_proj" in theirs or "k_proj" in theirs):
            array = permuted(array, 4 if "q_proj" in theirs else 2)
        found = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        assert found is not None, theirs
        writer.add_tensor(found, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
