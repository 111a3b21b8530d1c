"""Read a Hugging Face model folder: config.json, safetensors (one file or shards), tokenizer.

The files are mapped, not loaded: opening a 45 GB model reads only its headers, and what `read`
returns are the pages of the file itself. Pickled weights (`pytorch_model.bin`) are never read:
unpickling runs code from the file. `mend-jax convert` makes safetensors of them.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import Any, TypedDict

import numpy as np

from mend_jax.files import checksum, file_checksum, let_go, read_json
from mend_jax.typed import checked
from mend_jax.weights.chat_template import template_of_folder
from mend_jax.weights.errors import WeightsError
from mend_jax.weights.folder_tokenizer import AGAIN, json_object, tokenizer_files, tokenizer_of
from mend_jax.weights.names import plain_names
from mend_jax.weights.safetensors_file import FLOATS, Stored, map_safetensors
from mend_jax.weights.source import Weights

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_GENERATION = "generation_config.json"


def read_folder(path: str | PathLike[str]) -> Weights:
    """Open a model folder as `save_pretrained` writes it or the hub holds it.

    Returns:
        `Weights` with the tensors of all shards, in the dtype they are stored in. The tokenizer is
        None if the folder has none, and no alphabets in its config.json.

    Raises:
        WeightsError: no config.json, no safetensors, shards missing or without a tensor that the
            index places there, or a file that cannot be read; an adapter in place of a model.
    """
    folder = Path(path)
    config = read_config(folder)
    if (folder / _GENERATION).exists():
        config["generation_config"] = json_object(folder / _GENERATION)
    shards = find_shards(folder, _SINGLE, _INDEX)
    if shards is None:
        raise WeightsError(f"{folder} has no {_SINGLE} and no {_INDEX}{_advice(folder)}")
    stored = _stored(folder, shards)
    own = plain_names(stored, str(folder))

    def read(name: str) -> np.ndarray:
        dtype, shape, data = stored[own[name]]
        if dtype not in FLOATS:
            raise WeightsError(
                f"{folder}: {name} is stored as {dtype}; weights are read from {', '.join(FLOATS)} "
                'only. Download the model as it was before it was quantised; dtype="int8" of '
                "`load` quantises it."
            )
        return np.require(data.view(FLOATS[dtype]).reshape(shape), requirements="A")

    def checksum_of(name: str) -> str:
        dtype, shape, data = stored[own[name]]
        return checksum(f"{dtype} {list(shape)}", data)

    def release(name: str) -> None:
        let_go(stored[own[name]].data)

    tokenizer = tokenizer_of(folder, config)
    return Weights(
        config=config,
        names=tuple(own),
        read=read,
        shapes={name: stored[found].shape for name, found in own.items()},
        tokenizer=tokenizer,
        origin=str(folder),
        checksum=checksum_of,
        tokenizer_checksum="" if tokenizer is None else file_checksum(tokenizer_files(folder)),
        chat=template_of_folder(folder),
        files=tuple(shards),
        release=release,
    )


def _stored(folder: Path, shards: Mapping[Path, Sequence[str]]) -> dict[str, Stored]:
    """The tensors of all shards, each in one of them, and where the index promised it."""
    tensors: dict[str, Stored] = {}
    lacking = []
    for shard, promised in shards.items():
        there = map_safetensors(shard)
        lacking += [f"{name} in {shard.name}" for name in promised if name not in there]
        if twice := sorted(tensors.keys() & there):
            raise WeightsError(
                f"{shard} holds {len(twice)} tensors that another shard holds, too, such as "
                f"{twice[0]}. Download all of them again."
            )
        tensors |= there
    if lacking:
        raise WeightsError(
            f"{folder}: {len(lacking)} tensors are not in the shards where {_INDEX} places them: "
            f"{', '.join(lacking[:8])}{', ...' * (len(lacking) > 8)}. Index and shards are of two "
            "models or versions: download all of them again."
        )
    return tensors


class Index(TypedDict):
    """What is read of the index of several shards: {tensor: file}."""

    weight_map: dict[str, str]


def find_shards(folder: Path, single: str, index: str) -> dict[Path, list[str]] | None:
    """The files of a model's weights, and which tensors the index (if any) places in each.

    Args:
      single, index: the names of the only file, or of the index of several.

    Returns:
      None if there is neither.

    Raises:
      WeightsError: the index is damaged, or names a file that is not there, or not of this folder.
    """
    if (folder / single).exists():
        return {folder / single: []}
    if not (folder / index).exists():
        return None
    found = read_json(folder / index, WeightsError, AGAIN)
    weight_map = checked(Index, found, str(folder / index), WeightsError)["weight_map"]
    names = sorted(set(weight_map.values()))
    if outside := [name for name in names if Path(name).name != name or "\\" in name]:
        raise WeightsError(
            f"{folder / index}: weight_map names {outside[0]!r}, which is not a file of this "
            f"folder. {AGAIN}"
        )
    shards: dict[Path, list[str]] = {folder / name: [] for name in names}
    for name, shard in weight_map.items():
        shards[folder / shard].append(name)
    if missing := [shard.name for shard in shards if not shard.is_file()]:
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
    if others := sorted(file.name for file in folder.glob("*.gguf")):
        return f". It holds {others[0]}: pass the path of that file"
    return (
        ". Pass a folder with safetensors. (Of a hub repository that has only pytorch_model.bin: "
        "`hf download ID --local-dir FOLDER`, then `mend-jax convert FOLDER`.)"
    )


class Adapter(TypedDict, total=False):
    """What is read of PEFT's adapter_config.json, for a message."""

    peft_type: str | None
    base_model_name_or_path: str | None


def _check_no_adapter(folder: Path) -> None:
    """Refuses a folder of what PEFT trains beside a model."""
    path = folder / "adapter_config.json"
    if not path.is_file() or any((folder / name).exists() for name in (_SINGLE, _INDEX)):
        return
    said = checked(Adapter, read_json(path, WeightsError), str(path), WeightsError)
    kind, base = said.get("peft_type") or "PEFT", said.get("base_model_name_or_path")
    raise WeightsError(
        f"{folder} holds a {kind} adapter{f' for {base}' if base else ''}, not a model. Merge it "
        "into its base (in PEFT: `model.merge_and_unload()`), save that, and pass its folder."
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder.

    Raises:
      WeightsError: there is none, it is damaged, or the folder holds something else.
    """
    path = folder / "config.json"
    _check_no_adapter(folder)
    if not path.exists():
        raise WeightsError(f"{path} does not exist. Pass a model folder with its config.json.")
    config = json_object(path)
    if "editor" in config and "model_type" not in config:
        raise WeightsError(f"{folder} holds a saved editor, not a model; its base is elsewhere")
    return config
