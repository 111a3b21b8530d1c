"""Writes a base as a Hugging Face folder: config.json, safetensors, tokenizer.json.

The way back of `load_params`: the same table of names, read from right to left.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree
from safetensors.numpy import save_file

from mend_jax.files import replace_whole, write_text
from mend_jax.weights.safetensors_file import FLOATS, write_safetensors
from mend_jax.weights.source import Expected


def write_folder(
    folder: str | Path,
    config: Mapping[str, Any],
    params: PyTree,
    expected: Mapping[str, Expected],
    tokenizer: Any = None,
) -> None:
    """Writes the three files; each is replaced whole.

    Args:
      config: the content of config.json.
      params: float parameters in the layout of `expected`; they keep their dtype.
      tokenizer: a `tokenizers.Tokenizer`, if there is one.
    """
    folder = Path(folder)
    tensors = {name: stored_tensor(params, one) for name, one in expected.items()}
    folder.mkdir(parents=True, exist_ok=True)
    replace_whole(
        folder / "model.safetensors", lambda draft: save_file(tensors, draft, {"format": "pt"})
    )
    write_text(folder / "config.json", json.dumps(dict(config), indent=1) + "\n")
    if tokenizer is not None:
        write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))


def stored_tensor(params: PyTree, one: Expected) -> np.ndarray:
    """A tensor as a file has it, of the parameters that it became."""
    arrays = []
    for leaf in one.leaves:
        array = params
        for key in leaf.path:
            array = array[key]
        arrays.append(np.asarray(array))
    whole = np.concatenate(arrays, axis=-1) if one.parts else arrays[0]
    return np.ascontiguousarray(whole.T if one.transpose else whole)


def stored_shape(one: Expected) -> tuple[int, ...]:
    """The shape that it has there."""
    return tuple(reversed(one.shape)) if one.transpose else tuple(one.shape)


def write_shards(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    tensors: Iterator[np.ndarray],
    limit: float,
) -> None:
    """Writes tensors, one at a time, as `model.safetensors`, or as shards with their index.

    Args:
      dtype: of all of them, as a header names it ("F32"). tensors: in the order of `shapes`.
      limit: bytes of a shard; only a tensor that is larger itself makes a larger one.
    """
    size = np.dtype(FLOATS[dtype]).itemsize
    sizes = {name: size * int(np.prod(shape)) for name, shape in shapes.items()}
    shards: list[list[str]] = [[]]
    for name, bytes_of in sizes.items():
        if shards[-1] and sum(sizes[x] for x in shards[-1]) + bytes_of > limit:
            shards.append([])
        shards[-1].append(name)
    files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    files = files if len(shards) > 1 else ["model.safetensors"]
    for file, names in zip(files, shards, strict=True):
        kinds = {name: (dtype, shapes[name], sizes[name]) for name in names}
        bodies = (next(tensors).reshape(-1).view(np.uint8) for _ in names)
        write_safetensors(folder / file, kinds, bodies, {"format": "pt"})
    if len(shards) > 1:
        placed = zip(files, shards, strict=True)
        index = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": {name: file for file, names in placed for name in names},
        }
        text = json.dumps(index, indent=1) + "\n"
        write_text(folder / "model.safetensors.index.json", text)
