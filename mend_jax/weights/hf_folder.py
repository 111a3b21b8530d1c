"""Read a Hugging Face model folder: config.json, safetensors (one file or shards), tokenizer.

The files are mapped, not loaded: opening a 45 GB model reads only its headers, and each tensor is
copied out when it is asked for. Pickled weights (`pytorch_model.bin`) are never read: unpickling
runs code from the file.
"""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from mend_jax.weights.source import Weights, WeightsError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def read_folder(path: str | PathLike[str]) -> Weights:
    """Open a model folder as `save_pretrained` writes it or the hub holds it.

    Returns:
        `Weights` with the tensors of all shards; bfloat16 stays bfloat16, the rest is read as
        float32. The tokenizer is None if the folder has none.

    Raises:
        WeightsError: no config.json, no safetensors, shards missing, or a file that cannot be read.
    """
    folder = Path(path)
    config = _read_json(folder / "config.json")
    files: dict[str, Any] = {}
    for shard in _shards(folder):
        try:
            file = safe_open(shard, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{shard} is cut short or not a safetensors file ({error}). Download it again."
            ) from error
        files |= dict.fromkeys(file.keys(), file)

    def read(name: str) -> np.ndarray:
        array = files[name].get_tensor(name)
        return array if array.dtype == ml_dtypes.bfloat16 else array.astype(np.float32, copy=False)

    return Weights(
        config=config,
        names=tuple(files),
        read=read,
        shapes={name: tuple(file.get_slice(name).get_shape()) for name, file in files.items()},
        tokenizer=_tokenizer(folder),
        origin=str(folder),
    )


def _shards(folder: Path) -> list[Path]:
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    if (folder / _INDEX).exists():
        weight_map = _read_json(folder / _INDEX).get("weight_map", {})
        shards = [folder / name for name in sorted(set(weight_map.values()))]
        if missing := [shard.name for shard in shards if not shard.exists()]:
            raise WeightsError(
                f"{folder} lacks {len(missing)} of the {len(shards)} shards that {_INDEX} names: "
                f"{', '.join(missing)}. Download them into the folder."
            )
        return shards
    pickled = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    found = f"; pickled weights ({', '.join(pickled)}) are not read" if pickled else ""
    raise WeightsError(
        f"{folder} has no {_SINGLE} and no {_INDEX}{found}. Load the model once with transformers "
        "and save it again with model.save_pretrained(folder), which writes safetensors."
    )


def _tokenizer(folder: Path) -> Tokenizer | None:
    if (folder / "tokenizer.json").exists():
        try:
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise WeightsError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
    if any((folder / name).exists() for name in ("vocab.json", "spiece.model", "tokenizer.model")):
        from transformers import AutoTokenizer  # slow to import, and seldom needed

        return AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    return None


def _read_json(path: Path) -> dict:
    if not path.exists():
        raise WeightsError(f"{path} does not exist. Pass a model folder with its config.json.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}). Download it again.") from error
