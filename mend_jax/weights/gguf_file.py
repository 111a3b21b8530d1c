"""Read a GGUF file, or all parts of one, as if it were a Hugging Face checkpoint.

GGUF (llama.cpp) stores metadata, a table of tensors and their quantised blocks in one file. Names
and metadata keys are translated here; each tensor is dequantised to float32 when it is read.

llama.cpp rotates neighbouring rows of a head of Llama's, (0, 1), (2, 3), ..., Hugging Face the two
halves, (0, d/2), (1, d/2 + 1), ...; so the converter to GGUF permutes the rows of q and k. That is
undone, as is what it adds to the norms of Gemma.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mend_jax.files import checksum, json_checksum, let_go
from mend_jax.weights.chat_template import template_of_gguf
from mend_jax.weights.errors import WeightsError
from mend_jax.weights.gguf_header import Tensor
from mend_jax.weights.gguf_keys import FOLDER, bare, check_keys, head_width, scaling
from mend_jax.weights.gguf_kinds import REQUIRED, Kind
from mend_jax.weights.gguf_reading import open_gguf, parts_of
from mend_jax.weights.source import Weights

_DIVISORS = "rope_freqs.weight"
"""What Llama 3.1 and later divide their rotary frequencies by, one number for each pair."""
_TOGETHER = 2**14
"""Numbers of a row, or more, that are dequantised together with those of others."""


def read_gguf(path: str | PathLike[str]) -> Weights:
    """Open a GGUF file (of several parts, any of them) of an architecture of `gguf_kinds.KINDS`.

    Returns:
        `Weights` whose tensors are dequantised to float32, one at a time, as they are read.

    Raises:
        WeightsError: not a GGUF file, cut short, a part without the others, of another
            architecture, or it holds something (experts, a scaling, ...) that would be lost on the
            way.
        ImportError: the `gguf` package is not installed.
    """
    from mend_jax.weights.gguf_tokenizer import tokenizer_from_gguf  # loads `tokenizers`

    path = Path(path)
    fields, there = open_gguf(path)
    own = bare(fields)
    kind = check_keys(own, str(path))
    tensors = _hf_tensors(kind, there, path)
    tokenizer = tokenizer_from_gguf(fields, str(path))
    config = _config(kind, own, tensors.keys())
    if divisors := [tensor for tensor in there if tensor.name == _DIVISORS]:
        values = _float32(divisors[0])
        config["rope_parameters"] = {"rope_type": "divisors", "divisors": values.tolist()}
    heads = {}
    if kind.permuted:
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}

    def read(name: str) -> np.ndarray:
        tensor = tensors[name]
        try:
            array = _float32(tensor)
        except NotImplementedError as error:
            raise WeightsError(
                f"{path}: {name} has type {tensor.kind.name}, which the gguf package "
                "cannot dequantise. Use another quantisation of the model, such as Q8_0."
            ) from error
        if kind.norm_offset and name.endswith("norm.weight"):
            return array - np.float32(kind.norm_offset)
        n_heads = heads.get(name.split(".")[-2])
        return array if n_heads is None else _unpermute(array, n_heads)

    def checksum_of(name: str) -> str:
        tensor = tensors[name]
        return checksum(f"{tensor.kind.name} {list(tensor.shape)}", tensor.data)

    def release(name: str) -> None:
        let_go(tensors[name].data)

    said = [(key, repr(fields[key])) for key in sorted(fields) if key.startswith("tokenizer.")]
    return Weights(
        config=config,
        names=tuple(tensors),
        read=read,
        # ggml counts the fastest axis first.
        shapes={name: t.shape[::-1] for name, t in tensors.items()},
        tokenizer=tokenizer,
        origin=str(path),
        checksum=checksum_of,
        tokenizer_checksum="" if tokenizer is None else json_checksum(said),
        chat=template_of_gguf(fields),
        files=parts_of(path),
        release=release,
    )


def _hf_tensors(kind: Kind, tensors: Iterable[Tensor], path: Path) -> dict[str, Tensor]:
    """The file's tensors by their Hugging Face names, if nothing else is in it."""
    named = [(_hf_name(kind, tensor.name), tensor) for tensor in tensors]
    lost = [tensor.name for name, tensor in named if name is None and tensor.name != _DIVISORS]
    if lost:
        raise WeightsError(
            f"{path} holds what a plain model of its architecture has no place for: "
            f"{', '.join(lost[:8])}{f' and {len(lost) - 8} more' if len(lost) > 8 else ''}. "
            f"{FOLDER}"
        )
    return {name: tensor for name, tensor in named if name is not None}


def _hf_name(kind: Kind, name: str) -> str | None:
    """`blk.3.ffn_up.weight` -> `model.layers.3.mlp.up_proj.weight`; None if there is none."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None:
        return None
    layer, part, suffix = match.groups()
    module = kind.module(layer, part)
    return None if module is None else f"{module}.{suffix}"


def _config(kind: Kind, fields: Mapping[str, Any], names: Collection[str]) -> dict:
    config = {key: _shortest(fields[field]) for key, field in REQUIRED.items()}
    n_heads = config["num_attention_heads"]
    tokens = fields.get("tokenizer.ggml.tokens", ())
    own = {key: _shortest(fields.get(field, x)) for key, (field, x) in kind.read.items()}
    said = config | {
        "model_type": kind.model_type,
        "architectures": [kind.model],
        "num_key_value_heads": fields.get(".attention.head_count_kv", n_heads),
        "head_dim": head_width(fields),
        "rope_theta": _shortest(fields.get(".rope.freq_base", 10000.0)),
        "rope_scaling": scaling(fields),
        "vocab_size": fields.get(".vocab_size", len(tokens)),
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in names,
        "mlp_bias": "model.layers.0.mlp.up_proj.bias" in names,
        "tie_word_embeddings": "lm_head.weight" not in names,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
    }
    return {**said, **own, **kind.more(said)}


def _shortest(value: Any) -> Any:
    # The file's float32 1e-5 widens to 9.999999747e-06; config.json said 1e-5.
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _float32(tensor: Tensor) -> np.ndarray:
    """The values of a tensor. The package takes 16 rows at a time, which are few numbers where rows
    are short; to blocks of numbers it makes no difference where a row ends, so rows are joined."""
    import gguf

    if not tensor.data.size:
        return np.zeros(tensor.shape[::-1], np.float32)
    joined = math.gcd(math.prod(tensor.shape[1:]), 2 ** (_TOGETHER // tensor.shape[0]).bit_length())
    data = tensor.data.reshape(-1, joined * tensor.data.shape[-1])
    values = np.asarray(gguf.dequantize(data, tensor.kind), np.float32)
    return values.reshape(tensor.shape[::-1])


def _unpermute(array: np.ndarray, n_heads: int) -> np.ndarray:
    pairs = array.reshape(n_heads, -1, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)
