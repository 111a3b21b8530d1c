"""A Llama-like base with edits in its weights, as one GGUF file for llama.cpp.

The way back of `weights/gguf_file.py`: its names, its order of the rows of queries and keys, what
it adds to norms. Of a base that was read from a GGUF file, all that the file says is said again.
What is written is read again before it is given out, and has to be the base.
"""

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mend_jax.exports.card import Card, Kind, write_card
from mend_jax.exports.folder import ExportError, new_folder
from mend_jax.exports.format import Format, Job, Stored
from mend_jax.exports.gguf_metadata import OTHERWISE, add_settings, add_tokens, architecture_of
from mend_jax.exports.huggingface import Merged, Rounding
from mend_jax.factors import Edit
from mend_jax.models.family import told_apart
from mend_jax.models.registry import Base, family_of
from mend_jax.weights.export import stored_shape
from mend_jax.weights.fetch import fetch
from mend_jax.weights.gguf_file import read_gguf
from mend_jax.weights.gguf_kinds import KINDS
from mend_jax.weights.source import fitting_names

FILE = "model.gguf"
FILE_TYPES: dict[Stored, int] = {"float32": 0, "bfloat16": 32}
"""As the format numbers them: ALL_F32, MOSTLY_BF16. Vectors are float32 in both."""
SAMPLE = "The capital of France is Paris.\n\n  It's 1,234 km away: où? 北京!"
"""Besides edits, what the tokenizer that is read back has to cut in the same way."""
LEFT_OUT = r"GGUF\..+|split\..+|quantize\..+|general\.(architecture|file_type|quantization_version)"
"""Of a source's keys: those that say how it is stored."""

KIND = Kind(
    "gguf",
    "finetune",
    "A language model with edits in its weights, for llama.cpp",
    f'from llama_cpp import Llama\n\nprint(Llama("FOLDER/{FILE}")("..."))',
)


def export_gguf(
    base: Base, edit: Edit, out: str | Path, card: Card = Card(), dtype: Stored = "float32"
) -> Rounding:
    """Writes the base with the edit in its weights: model.gguf, and a model card.

    Args:
      base: in float32 or bfloat16; read from a GGUF file, or of a type in `ARCHITECTURES`.
      out: a new folder. dtype: of the matrices.

    Returns:
      what rounding leaves of the edit.

    Raises:
      ExportError: the folder is not empty; the edit is of another model; the base's weights are
        int8; its type, a setting or its tokenizer has no place in a file.
      WeightsError: the files that the base was read from are not there any more.
    """
    source = fetch(base.name)
    merged = Merged(base, edit, ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
    with new_folder(out) as folder:
        _write_file(base, merged, source, folder / FILE, dtype)
        check_same(base, folder / FILE, [prompt for prompt, _ in card.edits])
        found = merged.rounding()
        write_card(folder, base.name, card, KIND)
    return found


def _write_file(base: Base, merged: Merged, source: Path, path: Path, dtype: Stored) -> None:
    """Metadata, then one tensor after the other."""
    import gguf

    of_file = None if source.is_dir() else gguf.GGUFReader(source)
    if of_file is None:
        name = architecture_of(source)
    else:
        name = of_file.fields["general.architecture"].contents()
    kind, writer = KINDS[name], gguf.GGUFWriter(path, name)
    if of_file is None:
        add_settings(writer, source, base.config)
        if base.tokenizer is not None:
            add_tokens(writer, source, base.tokenizer, base.config.vocab_size)
    else:
        _add_fields(writer, of_file)
    writer.add_file_type(FILE_TYPES[dtype])
    parts = {hf: kind.part(hf.rpartition(".")[0]) for hf in merged.table}
    if lost := [hf for hf, part in parts.items() if part is None]:
        raise ExportError(f"{base.name}: {lost[0]} has no place in a file. {OTHERWISE}")
    divisors = [t for t in (of_file.tensors if of_file else ()) if t.name == "rope_freqs.weight"]
    for hf, one in merged.table.items():
        shape, small = stored_shape(one), dtype == "bfloat16" and len(stored_shape(one)) > 1
        size = (2 if small else 4) * int(np.prod(shape))
        raw = gguf.GGMLQuantizationType.BF16 if small else gguf.GGMLQuantizationType.F32
        named = f"{parts[hf]}.{hf.rpartition('.')[2]}"
        writer.add_tensor_info(named, shape, np.dtype(np.float32), size, raw)
    for tensor in divisors:
        writer.add_tensor_info(tensor.name, tensor.data.shape, tensor.data.dtype, tensor.n_bytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    heads = {"q_proj": base.config.num_attention_heads, "k_proj": base.config.num_key_value_heads}
    for hf in merged.table:
        array = merged.read(hf)
        n = heads.get(hf.split(".")[-2]) if kind.permuted else None
        array = array if n is None else _permute(array, n)
        if kind.norm_offset and hf.endswith("norm.weight"):
            array = (array.astype(np.float32) + kind.norm_offset).astype(array.dtype)
        array = array if array.ndim > 1 else array.astype(np.float32)
        writer.write_tensor_data(np.ascontiguousarray(array))
    for tensor in divisors:
        writer.write_tensor_data(tensor.data)
    writer.close()


def _permute(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head in llama.cpp's order, (0, d/2), (1, d/2 + 1), ... (see `gguf_file.py`)."""
    halves = array.reshape(heads, 2, -1, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def _add_fields(writer: Any, source: Any) -> None:
    """All that the file which the base was read from says, but how it is stored."""
    for key, field in source.fields.items():
        if not re.fullmatch(LEFT_OUT, key):
            of = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], of)


def check_same(base: Base, path: Path, texts: list[str]) -> None:
    """Raises ExportError unless the file is read as a model like the base, whose tokenizer cuts
    texts in the same way."""
    weights = read_gguf(path)
    found = family_of(weights.config).dimensions(weights.config, weights.names)
    ours, theirs = told_apart(base.config), told_apart(found)
    others = [k for k in ours | theirs if ours.get(k) != theirs.get(k)]
    if others:
        raise ExportError(
            f"{base.name} has settings that a GGUF file does not hold here: {', '.join(others)}. "
            f"{OTHERWISE}"
        )
    fitting_names(weights, base.family.expected_weights(base.config))
    for text in (SAMPLE, *texts):
        cut = [t and t.encode(text).ids for t in (base.tokenizer, weights.tokenizer)]
        if cut[0] != cut[1]:
            raise ExportError(f"a GGUF file would cut {text!r} otherwise. {OTHERWISE}")


def _write(job: Job, out: Path) -> list[str]:
    found = export_gguf(job.saved.base, job.edit, out, job.card, job.how.stored)
    return [
        f"in {job.how.stored}, {found.changed:.1%} of the weights that the edits move are others "
        f"than without them; rounding is {found.error:.2%} of the edits"
    ]


FORMAT = Format(False, _write)
