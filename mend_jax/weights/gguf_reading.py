"""A GGUF file opened and checked: its metadata as plain values, its tensors where they belong.

The `gguf` package reads what a file says of itself; that its tensors lie end to end, as llama.cpp
wants them, and are all there, is checked here.
"""

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mend_jax.files import check_no_pointer
from mend_jax.weights.errors import WeightsError

_MAGIC = b"GGUF"
_TEXT, _LIST = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its kind, as the format numbers them."""


def open_gguf(path: Path) -> tuple[dict[str, Any], Sequence[Any]]:
    """The metadata and the tensors (`gguf.ReaderTensor`, mapped) of a file, and of all the others
    if it is a part of several.

    Raises:
      WeightsError: not a GGUF file, a Git LFS pointer, cut short, or damaged; a part that is not
        what its name says, or without the others.
      ImportError: the `gguf` package is not installed.
    """
    parts = parts_of(path)
    fields, tensors = _open_one(parts[0])
    for number, part in enumerate(parts):
        said, more = (fields, []) if number == 0 else _open_one(part)
        tensors += more
        place = said.get("split.no", 0), said.get("split.count", 1) or 1
        if place != (number, len(parts)):
            raise WeightsError(
                f"{part} holds part {place[0] + 1} of {place[1]} of a split model, which is not "
                "what its name says. Give the parts the names that they had, "
                "NAME-00001-of-00003.gguf, and pass any of them."
            )
    whole = fields.get("split.tensors.count", len(tensors)) or len(tensors)
    if whole != len(tensors) or len({tensor.name for tensor in tensors}) < len(tensors):
        raise WeightsError(
            f"{path}: its {len(parts)} parts hold {len(tensors)} tensors, some perhaps twice, not "
            f"{whole}. Download all of them again."
        )
    return fields, tensors


def parts_of(path: Path) -> tuple[Path, ...]:
    """All files of the model, by the name of one.

    Raises:
      WeightsError: one is not there.
    """
    match = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.gguf", path.name)
    if match is None or not path.is_file():
        return (path,)
    name, _, count = match.groups()
    names = (f"{name}-{i + 1:05}-of-{count}.gguf" for i in range(int(count)))
    parts = tuple(path.with_name(name) for name in names)
    if missing := [part.name for part in parts if not part.is_file()]:
        raise WeightsError(
            f"{path} is one of {len(parts)} parts, of which {len(missing)} are not beside it: "
            f"{', '.join(missing[:4])}{', ...' * (len(missing) > 4)}. Download them, too."
        )
    return parts or (path,)


def _open_one(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """The metadata and the tensors of one file."""
    _check_magic(path)
    try:
        import gguf
    except ImportError as error:
        raise ImportError(f"reading {path} needs the `gguf` package: pip install gguf") from error
    try:
        _check_metadata(np.memmap(path, np.uint8, "r"))
        reader = gguf.GGUFReader(path)
        fields = {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{path} is cut short, damaged or of an unknown version ({error}). Download it again."
        ) from error
    _check_places(reader, path)
    return fields, list(reader.tensors)


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


def _check_metadata(data: Any) -> None:
    """Walks over the metadata of a file's bytes; the package would go on past their end for ever.

    Raises:
      ValueError: it does not end within the file, or has lists of lists.
    """
    order = ">" if _number(data, 4, "<I") % 65536 == 0 else "<"
    at = 24
    for _ in range(_number(data, 16, f"{order}Q")):
        at = _after(data, at, _TEXT, order)  # the key
        at = _after(data, at + 4, _number(data, at, f"{order}I"), order)


def _after(data: Any, at: int, kind: int, order: str) -> int:
    """Where a value of this kind ends that begins at a byte."""
    if kind == _TEXT:
        end = at + 8 + _number(data, at, f"{order}Q")
    elif kind == _LIST:
        of, count = _number(data, at, f"{order}I"), _number(data, at + 4, f"{order}Q")
        end = at + 12
        if of in _SIZES:
            end += count * _SIZES[of]
        elif of == _TEXT:
            for _ in range(count):
                end = _after(data, end, of, order)
        else:
            raise ValueError(f"a list of values of kind {of}")
    elif kind in _SIZES:
        end = at + _SIZES[kind]
    else:
        raise ValueError(f"a value of the unknown kind {kind}")
    if end > len(data):
        raise ValueError(f"a value should end at byte {end} of {len(data)}")
    return end


def _number(data: Any, at: int, form: str) -> int:
    if at + struct.calcsize(form) > len(data):
        raise ValueError(f"the file ends at byte {len(data)}, within its metadata")
    number: int = struct.unpack_from(form, data, at)[0]
    return number


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
