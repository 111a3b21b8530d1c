"""A base with edits in its weights, as a folder that transformers loads.

Each tensor is made and written by itself: W + sum_r u_r delta_r^T in float32, then rounded to the
dtype of the file. Config, tokenizer and generation config are those of the base.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from mend_jax.exports.card import Card, Kind, write_card
from mend_jax.exports.folder import ExportError, new_folder
from mend_jax.exports.format import Format, Job, Stored
from mend_jax.exports.places import by_module
from mend_jax.factors import Edit, to_dense
from mend_jax.models.registry import Base
from mend_jax.weights.export import stored_shape, stored_tensor, write_shards
from mend_jax.weights.fetch import fetch
from mend_jax.weights.hf_folder import read_config
from mend_jax.weights.source import Expected, Weights

DTYPES: Mapping[Stored, tuple[str, Any]] = {
    "float32": ("F32", np.float32), "bfloat16": ("BF16", ml_dtypes.bfloat16),
}  # fmt: skip
BESIDE = (".json", ".txt", ".model", ".jinja")
"""Endings of the files that belong to a model beside its weights."""

KIND = Kind(
    "transformers",
    "finetune",
    "A language model with edits in its weights",
    'from transformers import pipeline\n\nprint(pipeline("text-generation", "FOLDER")("..."))',
)


class Rounding(NamedTuple):
    """What is left of an edit in the weights of a file.

    changed: share of the weights that the edit moves which are others than without it. error: |what
    was added - the edit| / |the edit|.
    """

    changed: float
    error: float


def export_huggingface(
    base: Base,
    edit: Edit,
    out: str | Path,
    card: Card = Card(),
    dtype: Stored = "float32",
    shard_gb: float = 5.0,
) -> Rounding:
    """Writes the base with the edit in its weights: safetensors, config, tokenizer, model card.

    Args:
      base: in float32 or bfloat16; all families. out: a new folder.
      dtype: of the weights in the files. shard_gb: largest size of a shard, in GB.

    Returns:
      what rounding leaves of the edit.

    Raises:
      ExportError: the folder is not empty; the edit is of another model; the base's weights are
        int8, or its settings have no words in a config.json.
      WeightsError: the files that the base was read from are not there any more.
    """
    merged = Merged(base, edit, DTYPES[dtype][1])
    with new_folder(out) as folder:
        write_beside(base, folder, dtype)
        shapes = {name: stored_shape(one) for name, one in merged.table.items()}
        write_shards(folder, shapes, DTYPES[dtype][0], iter(merged), shard_gb * 1e9)
        found = merged.rounding()
        write_card(folder, base.name, card, KIND)
    return found


class Merged:
    """The tensors of a base with an edit, one after another, and what rounding leaves of it.

    Raises:
      ExportError: as `export_huggingface`.
    """

    def __init__(self, base: Base, edit: Edit, dtype: Any) -> None:
        self.table: dict[str, Expected] = base.family.expected_weights(base.config)
        self._base, self._dtype = base, dtype
        self._edits = {place.tensor: part for place, part in by_module(base, edit).values()}
        self._moved = self._changed = 0
        self._error = self._size = 0.0
        check_floats(base)

    def __iter__(self) -> Iterator[np.ndarray]:
        for name in self.table:
            yield self.read(name)

    def read(self, name: str) -> np.ndarray:
        """One tensor, as a Hugging Face file has it."""
        one = self.table[name]
        before = stored_tensor(self._base.params, one)
        if name not in self._edits:
            return before.astype(self._dtype)
        change = np.asarray(to_dense(self._edits[name]), np.float32)
        change = change.T if one.transpose else change
        after = (before.astype(np.float32) + change).astype(self._dtype)
        added = after.astype(np.float32) - before.astype(self._dtype).astype(np.float32)
        self._moved += int(np.count_nonzero(change))
        self._changed += int(np.count_nonzero(added[change != 0]))
        self._error += float(np.sum((added - change) ** 2, dtype=np.float64))
        self._size += float(np.sum(change**2, dtype=np.float64))
        return np.ascontiguousarray(after)

    def rounding(self) -> Rounding:
        """Of the tensors that were read so far."""
        error = (self._error / (self._size or 1.0)) ** 0.5
        return Rounding(self._changed / max(self._moved, 1), error)


def check_floats(base: Base) -> None:
    """Raises ExportError for int8 weights, in which an edit would be rounded away."""
    import jax

    if any(leaf.dtype == np.int8 for leaf in jax.tree.leaves(base.params)):
        raise ExportError(
            f"{base.name} is loaded in int8, in which edits are rounded away: load it with "
            'dtype="float32" or "bfloat16" (--dtype in a command)'
        )


def write_beside(base: Base, folder: Path, dtype: Stored) -> None:
    """What belongs to a model beside its weights, from where the base was read."""
    source = fetch(base.name)
    if source.is_dir():
        config = read_config(source)
        for file in source.iterdir():
            weights = file.name.endswith(".index.json") or file.name == "config.json"
            if file.suffix in BESIDE and file.is_file() and not weights:
                shutil.copyfile(file, folder / file.name)
    else:
        config = _from_gguf(source, folder)
    config.pop("torch_dtype", None)
    config["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _from_gguf(source: Path, folder: Path) -> dict[str, Any]:
    """Writes what a GGUF file says of tokens, and returns its config."""
    from mend_jax.weights.gguf_file import read_gguf

    weights: Weights = read_gguf(source)
    config = dict(weights.config)
    if config.get("rope_parameters", {}).get("rope_type") == "divisors":
        raise ExportError(
            f"{source}: it divides its rotary frequencies by numbers for which config.json has no "
            "words: load the folder of the same model, or export it as gguf"
        )
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    said = {name: x for name, x in ends.items() if x is not None}
    told: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    told |= {name: token for name, token in weights.chat.tokens.items() if f"{name}_id" in said}
    if weights.chat.source:
        told["chat_template"] = weights.chat.source
    if weights.tokenizer is not None:
        weights.tokenizer.save(str(folder / "tokenizer.json"))
        _write_json(folder / "tokenizer_config.json", told)
    _write_json(folder / "generation_config.json", said)
    return config


def _write(job: Job, out: Path) -> list[str]:
    how = job.how
    found = export_huggingface(job.saved.base, job.edit, out, job.card, how.stored, how.shard_gb)
    return [
        f"in {how.stored}, {found.changed:.1%} of the weights that the edits move are others than "
        f"without them; rounding is {found.error:.2%} of the edits"
    ]


FORMAT = Format(False, _write)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
