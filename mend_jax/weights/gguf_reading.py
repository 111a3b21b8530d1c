"""A GGUF file opened and checked: its metadata as plain values, its tensors where they belong.

The `gguf` package reads what a file says of itself; that its tensors lie end to end, as llama.cpp
wants them, and are all there, is checked here.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mend_jax.files import check_no_pointer
from mend_jax.weights.errors import WeightsError

_MAGIC = b"GGUF"


def open_gguf(path: Path) -> tuple[dict[str, Any], Sequence[Any]]:
    """The metadata and the tensors (`gguf.ReaderTensor`, mapped) of a file.

    Raises:
      WeightsError: not a GGUF file, a Git LFS pointer, one part of several, cut short, or damaged.
      ImportError: the `gguf` package is not installed.
    """
    _check_magic(path)
    try:
        import gguf
    except ImportError as error:
        raise ImportError(f"reading {path} needs the `gguf` package: pip install gguf") from error
    try:
        reader = gguf.GGUFReader(path)
        fields = {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{path} is cut short, damaged or of an unknown version ({error}). Download it again."
        ) from error
    _check_whole(fields, path)
    _check_places(reader, path)
    return fields, reader.tensors


def _check_magic(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"{path} is not a file. Pass the path of a .gguf file.")
    check_no_pointer(path, WeightsError)
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start != _MAGIC:
        raise WeightsError(
            f"{path} is not a GGUF file (it starts with {start!r}, not {_MAGIC!r}). Pass a .gguf "
            "file, or a folder with config.json and model.safetensors."
        )


def _check_whole(fields: Mapping[str, Any], path: Path) -> None:
    """Refuses one part of a model that was split over several files."""
    count = fields.get("split.count", 1)
    if count in (0, 1) and not re.search(r"-of-(?!00001)\d{5}\.gguf$", path.name):
        return
    number = fields.get("split.no")
    part = f"part {number + 1} of {count}" if isinstance(number, int) else "one part"
    raise WeightsError(
        f"{path} holds {part} of a split model. Join the parts "
        "(`llama-gguf-split --merge FIRST-PART.gguf WHOLE.gguf`) and pass the whole file."
    )


def _check_places(reader: Any, path: Path) -> None:
    """Refuses tensors that do not lie end to end, each at the next multiple of the alignment."""
    end = reader.data_offset
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.data_offset):
        begin = end + -end % reader.alignment
        if tensor.data_offset != begin:
            how = "overlaps another tensor" if tensor.data_offset < begin else "leaves a hole"
            raise WeightsError(
                f"{path} is damaged ({tensor.name} begins at byte {tensor.data_offset}, not at "
                f"{begin}: it {how}). Download it again."
            )
        end = tensor.data_offset + tensor.n_bytes
    rest = len(reader.data) - end
    if not 0 <= rest <= -end % reader.alignment:
        raise WeightsError(
            f"{path} is damaged (its tensors end at byte {end}, the file at {len(reader.data)}). "
            "Download it again."
        )
