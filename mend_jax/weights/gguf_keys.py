"""What a GGUF file says of its model: keys that are read, and all others.

A key that is not read here is one that changes nothing (`IGNORED`), has the one value that a plain
model of its architecture has (`_FIXED`), or is refused by name: it might change what the model
computes.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from mend_jax.weights.errors import WeightsError
from mend_jax.weights.gguf_kinds import KINDS, REQUIRED, Kind

_ALSO = (".attention.head_count_kv", ".attention.key_length", ".rope.freq_base", ".vocab_size")
"""Keys that are read in all architectures, where they are there."""

_REAL = (".attention.layer_norm_rms_epsilon", ".rope.freq_base", ".rope.freq_base_swa",
         ".attn_logit_softcapping", ".final_logit_softcapping")  # fmt: skip

IGNORED: Mapping[str, str] = {
    r"GGUF\.[a-z_]+": "counts what is in the file",
    r"general\.(?!type$).+": "says what the model is called, whose it is, and how it is stored",
    r"tokenizer\..+": "is the tokenizer's, which is read apart",
    r"quantize\..+": "says how the weights were quantised, which they say themselves",
    r"split\..+": "says which part of a model the file is, which is checked apart",
    r"\.tensor_data_layout": "says which of two converters wrote the file",
    r"\.rope\.scaling\.(original_context_length|finetuned)": (
        "means something with a scaling only, which is read apart"
    ),
}
"""{regular expression of keys: why they change nothing}."""

Fields = Mapping[str, Any]


def bare(fields: Fields) -> dict[str, Any]:
    """The fields with the architecture taken off their keys: `.block_count`."""
    prefix = f"{fields.get('general.architecture')}."
    return {
        key.replace(prefix, ".", 1) if key.startswith(prefix) else key: value
        for key, value in fields.items()
    }


def _nothing(value: Any, fields: Fields) -> bool:
    return value in (0, False)


def _one(value: Any, fields: Fields) -> bool:
    return value == 1


def _off_or_one(value: Any, fields: Fields) -> bool:
    return value in (0, 1)


def head_width(fields: Fields) -> int:
    """Features of one head of queries or keys."""
    width = fields[".embedding_length"] // fields[".attention.head_count"]
    return fields.get(".attention.key_length", width)


def scaling(fields: Fields) -> dict[str, Any] | None:
    """The rotary scaling as config.json says it, if it says one that is known, and whole."""
    kind, factor = (fields.get(f".rope.scaling.{name}") for name in ("type", "factor"))
    if kind not in ("linear", "yarn") or not _is_number(factor, whole=False):
        return None
    first = fields.get(".rope.scaling.original_context_length")
    if kind == "linear":
        return {"rope_type": kind, "factor": factor}
    if not _is_number(first, whole=True):
        return None
    return {"rope_type": kind, "factor": factor, "original_max_position_embeddings": first}


_FIXED: Mapping[str, Callable[[Any, Fields], bool]] = {
    "general.type": lambda x, fields: x == "model",
    ".attention.causal": _one,
    ".attention.clamp_kqv": _nothing,
    ".attention.max_alibi_bias": _nothing,
    ".attention.scale": lambda x, fields: abs(x * head_width(fields) ** 0.5 - 1) < 1e-6,
    ".attention.sliding_window": lambda x, fields: x == 0 or x >= fields[".context_length"],
    ".attention.value_length": lambda x, fields: x == head_width(fields),
    ".embedding_scale": _off_or_one,
    ".expert_count": _nothing,
    ".expert_used_count": _nothing,
    ".logit_scale": _off_or_one,
    ".pooling_type": _nothing,
    ".residual_scale": _off_or_one,
    ".rope.dimension_count": lambda x, fields: x == head_width(fields),
    ".rope.scale_linear": _off_or_one,
    ".rope.scaling.attn_factor": _off_or_one,
    ".rope.scaling.factor": lambda x, fields: x in (0, 1) or scaling(fields) is not None,
    ".rope.scaling.type": lambda x, fields: x == "none" or scaling(fields) is not None,
    ".use_parallel_residual": _nothing,
}
"""{key: whether this value of it is that of a plain model}; of scales, 0 means none."""


def check_keys(fields: Fields, origin: str) -> Kind:
    """The file's architecture, unless keys are missing, no numbers where they have to be, or say
    what is not implemented.

    Args:
      fields: bare.

    Raises:
      WeightsError: there are such keys, which are all named; or another architecture.
    """
    named = fields.get("general.architecture")
    if not isinstance(named, str) or named not in KINDS:
        raise WeightsError(
            f"{origin} holds a model of architecture {named!r}; read from GGUF are "
            f"{', '.join(KINDS)}. {FOLDER}"
        )
    kind = KINDS[named]
    if absent := [f"{named}{key}" for key in REQUIRED.values() if key not in fields]:
        raise WeightsError(f"{origin} lacks the metadata {', '.join(absent)}. Convert it again.")
    read = {*REQUIRED.values(), *_ALSO, *(key for key, _ in kind.read.values())}
    wrong = [
        key for key in sorted(read & fields.keys()) if not _is_number(fields[key], key not in _REAL)
    ]
    ignored = "|".join(IGNORED)
    for key in () if wrong else fields.keys() - read:
        plain = _is_plain(key, fields) if key in _FIXED else re.fullmatch(ignored, key) is not None
        wrong += [] if plain else [key]
    if wrong:
        said = (f"{named * key.startswith('.')}{key} = {_short(fields[key])}" for key in wrong)
        raise WeightsError(
            f"{origin} has settings that a plain model of architecture {named} has not, and that "
            f"are not implemented for GGUF: {', '.join(sorted(said))}. {FOLDER}"
        )
    return kind


FOLDER = "Use the folder of the same model with config.json and model.safetensors."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def _is_number(value: Any, whole: bool) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) and value > 0 if whole else isinstance(value, int | float)


def _is_plain(key: str, fields: Fields) -> bool:
    try:
        return bool(_FIXED[key](fields[key], fields))
    except TypeError:  # a list or a text in place of a number
        return False
