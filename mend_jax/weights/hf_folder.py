"""Read a Hugging Face model folder: config.json, safetensors (one file or shards), tokenizer.

The files are mapped, not loaded: opening a 45 GB model reads only its headers, and what `read`
returns are the pages of the file itself. Pickled weights (`pytorch_model.bin`) are never read:
unpickling runs code from the file. `mend-jax convert` makes safetensors of them.
"""

import json
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from mend_jax.weights.safetensors_file import FLOATS, Stored, map_safetensors
from mend_jax.weights.source import Weights, WeightsError
from mend_jax.weights.tokenizer_config import as_configured

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_GENERATION = "generation_config.json"
_VOCABULARIES = ("vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")


def read_folder(path: str | PathLike[str]) -> Weights:
    """Open a model folder as `save_pretrained` writes it or the hub holds it.

    Returns:
        `Weights` with the tensors of all shards, in the dtype they are stored in. The tokenizer is
        None if the folder has none, and no alphabets in its config.json.

    Raises:
        WeightsError: no config.json, no safetensors, shards missing or without a tensor that the
            index places there, or a file that cannot be read.
    """
    folder = Path(path)
    config = read_json(folder / "config.json")
    if (folder / _GENERATION).exists():
        config["generation_config"] = read_json(folder / _GENERATION)
    shards = find_shards(folder, _SINGLE, _INDEX)
    if shards is None:
        raise WeightsError(f"{folder} has no {_SINGLE} and no {_INDEX}{_advice(folder)}")
    tensors: dict[str, Stored] = {}
    lacking = []
    for shard, promised in shards.items():
        there = map_safetensors(shard)
        lacking += [f"{name} in {shard.name}" for name in promised if name not in there]
        tensors |= there
    if lacking:
        raise WeightsError(
            f"{folder}: {len(lacking)} tensors are not in the shards where {_INDEX} places them: "
            f"{', '.join(lacking[:8])}{', ...' * (len(lacking) > 8)}. Index and shards are of two "
            "models or versions: download all of them again."
        )

    def read(name: str) -> np.ndarray:
        dtype, shape, data = tensors[name]
        if dtype not in FLOATS:
            raise WeightsError(
                f"{folder}: {name} is stored as {dtype}; weights are read from {', '.join(FLOATS)} "
                'only. Download the model as it was before it was quantised; dtype="int8" of '
                "`load` quantises it."
            )
        return np.require(data.view(FLOATS[dtype]).reshape(shape), requirements="A")

    return Weights(
        config=config,
        names=tuple(tensors),
        read=read,
        shapes={name: stored.shape for name, stored in tensors.items()},
        tokenizer=_tokenizer(folder, config),
        origin=str(folder),
    )


def find_shards(folder: Path, single: str, index: str) -> dict[Path, list[str]] | None:
    """The files of a model's weights, and which tensors the index (if any) places in each.

    Args:
        single, index: the names of the only file, or of the index of several.

    Returns:
        None if there is neither.

    Raises:
        WeightsError: the index names a file that is not there.
    """
    if (folder / single).exists():
        return {folder / single: []}
    if not (folder / index).exists():
        return None
    weight_map = read_json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise WeightsError(f"{folder / index} has no weight_map. Download it again.")
    shards: dict[Path, list[str]] = {folder / name: [] for name in sorted(set(weight_map.values()))}
    for name, shard in weight_map.items():
        shards[folder / shard].append(name)
    if missing := [shard.name for shard in shards if not shard.exists()]:
        raise WeightsError(
            f"{folder} lacks {len(missing)} of the {len(shards)} shards that {index} names: "
            f"{', '.join(missing)}. Download them into the folder."
        )
    return shards


def _advice(folder: Path) -> str:
    pickled = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if pickled:
        return (
            f"; pickled weights ({', '.join(pickled)}) are not read. Make safetensors of them: "
            f"mend-jax convert {quote(str(folder))}"
        )
    return (
        ". Pass a folder with safetensors. (Of a hub repository that has only pytorch_model.bin: "
        "`hf download ID --local-dir FOLDER`, then `mend-jax convert FOLDER`.)"
    )


def _tokenizer(folder: Path, config: dict) -> Any:
    """The folder's tokenizer, without the padding and the truncation that it may come with."""
    tokenizer = _stored_tokenizer(folder, config)
    if tokenizer is not None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
    return tokenizer


def _stored_tokenizer(folder: Path, config: dict) -> Any:
    """A `tokenizers.Tokenizer`, or None."""
    if (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer  # not needed to import this package

        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise WeightsError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
        beside = folder / "tokenizer_config.json"
        return as_configured(tokenizer, read_json(beside) if beside.exists() else {}, str(beside))
    if any((folder / name).exists() for name in _VOCABULARIES):
        from transformers import AutoTokenizer  # slow to import, and seldom needed

        return AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    if "grapheme_chars" in config and "phoneme_chars" in config:
        from mend_jax.weights.spelling import spelling_tokenizer  # loads `tokenizers`

        return spelling_tokenizer(config, str(folder))
    return None


def read_json(path: Path) -> dict:
    """A JSON file of a model folder, or WeightsError."""
    if not path.exists():
        raise WeightsError(f"{path} does not exist. Pass a model folder with its config.json.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}). Download it again.") from error
