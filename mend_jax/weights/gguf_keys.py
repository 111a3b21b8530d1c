"""What a GGUF file of architecture `llama` says of the model: keys that are read, and all others.

A key that is not read here is one that changes nothing (`IGNORED`), has the one value that a plain
Llama model has (`_FIXED`), or is refused by name: it might change what the model computes.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from mend_jax.weights.errors import WeightsError

REQUIRED = {
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "max_position_embeddings": "llama.context_length",
}
"""{key of config.json: key of the file}."""

READ = frozenset(REQUIRED.values()) | {
    "general.architecture",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.rope.freq_base",
    "llama.vocab_size",
}

IGNORED: Mapping[str, str] = {
    r"GGUF\.[a-z_]+": "counts what is in the file",
    r"general\.(?!type$).+": "says what the model is called, whose it is, and how it is stored",
    r"tokenizer\..+": "is the tokenizer's, which is read apart",
    r"quantize\..+": "says how the weights were quantised, which they say themselves",
    r"llama\.tensor_data_layout": "says which of two converters wrote the file",
    r"llama\.rope\.scaling\.(original_context_length|finetuned|yarn_[a-z_]+)": (
        "means something with a scaling only, and none is read"
    ),
}
"""{regular expression of keys: why they change nothing}."""


def _nothing(value: Any, fields: Mapping[str, Any]) -> bool:
    return value in (0, False)


def _one(value: Any, fields: Mapping[str, Any]) -> bool:
    return value == 1


def _off_or_one(value: Any, fields: Mapping[str, Any]) -> bool:
    return value in (0, 1)


def head_width(fields: Mapping[str, Any]) -> int:
    """Features of one head of queries or keys."""
    width = fields["llama.embedding_length"] // fields["llama.attention.head_count"]
    return fields.get("llama.attention.key_length", width)


_FIXED: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "general.type": lambda x, fields: x == "model",
    "split.count": lambda x, fields: x in (0, 1),
    "split.no": _nothing,
    "split.tensors.count": lambda x, fields: fields.get("split.count", 1) in (0, 1),
    "llama.attention.causal": _one,
    "llama.attention.clamp_kqv": _nothing,
    "llama.attention.max_alibi_bias": _nothing,
    "llama.attention.scale": lambda x, fields: abs(x * head_width(fields) ** 0.5 - 1) < 1e-6,
    "llama.attention.sliding_window": lambda x, fields: (
        x == 0 or x >= fields["llama.context_length"]
    ),
    "llama.attention.value_length": lambda x, fields: x == head_width(fields),
    "llama.embedding_scale": _off_or_one,
    "llama.expert_count": _nothing,
    "llama.expert_used_count": _nothing,
    "llama.logit_scale": _off_or_one,
    "llama.pooling_type": _nothing,
    "llama.residual_scale": _off_or_one,
    "llama.rope.dimension_count": lambda x, fields: x == head_width(fields),
    "llama.rope.scale_linear": _off_or_one,
    "llama.rope.scaling.attn_factor": _off_or_one,
    "llama.rope.scaling.factor": _off_or_one,
    "llama.rope.scaling.type": lambda x, fields: x == "none",
    "llama.use_parallel_residual": _nothing,
}
"""{key: whether this value of it is that of a plain Llama model}; of scales, 0 means none."""


def check_keys(fields: Mapping[str, Any], origin: str) -> None:
    """Refuses keys that are missing, not whole numbers where they have to be, or not implemented.

    Raises:
      WeightsError: there are some; all are named.
    """
    if absent := [key for key in REQUIRED.values() if key not in fields]:
        raise WeightsError(f"{origin} lacks the metadata {', '.join(absent)}. Convert it again.")
    wrong = [
        f"{key} = {fields[key]!r}"
        for key in sorted(READ - {"general.architecture"})
        if key in fields and not _is_number(fields[key], whole=key not in _REAL)
    ]
    ignored = "|".join(IGNORED)
    for key, value in () if wrong else fields.items():
        if key in _FIXED:
            plain = _is_plain(key, value, fields)
        else:
            plain = key in READ or re.fullmatch(ignored, key) is not None
        if not plain:
            text = repr(value)
            wrong.append(f"{key} = {text if len(text) < 60 else text[:57] + '...'}")
    if wrong:
        raise WeightsError(
            f"{origin} has settings that a plain Llama model has not, and that are not implemented "
            f"for GGUF: {', '.join(wrong)}. Use the folder of the same model with config.json and "
            "model.safetensors."
        )


_REAL = ("llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base")


def _is_number(value: Any, whole: bool) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) and value > 0 if whole else isinstance(value, int | float)


def _is_plain(key: str, value: Any, fields: Mapping[str, Any]) -> bool:
    try:
        return bool(_FIXED[key](value, fields))
    except TypeError:  # a list or a text in place of a number
        return False
