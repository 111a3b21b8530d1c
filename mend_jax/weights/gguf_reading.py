"""A GGUF file opened and checked: its metadata as plain values, its tensors where they belong.

That its tensors lie end to end, as llama.cpp wants them, and are all there, is checked here.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mend_jax.files import check_no_pointer
from mend_jax.weights.errors import WeightsError
from mend_jax.weights.gguf_header import Header, Tensor, read_header

_MAGIC = b"GGUF"


def open_gguf(path: Path) -> tuple[dict[str, Any], Sequence[Tensor]]:
    """The metadata and the tensors of a file, and of all the others if it is a part of several.

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


def _open_one(path: Path) -> tuple[dict[str, Any], list[Tensor]]:
    """The metadata and the tensors of one file."""
    _check_magic(path)
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)
    try:
        header = read_header(data)
    except ImportError as error:
        raise ImportError(f"reading {path} needs the `gguf` package: pip install gguf") from error
    except (ValueError, OverflowError) as error:
        raise WeightsError(
            f"{path} is cut short, damaged or of an unknown version ({error}). Download it again."
        ) from error
    _check_places(header, len(data), path)
    return header.fields, header.tensors


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


def _check_places(header: Header, size: int, path: Path) -> None:
    """Refuses tensors that do not lie end to end, each at the next multiple of the alignment, in a
    file of so many bytes."""
    end = header.end
    for tensor in sorted(header.tensors, key=lambda tensor: tensor.begin):
        begin = end + -end % header.alignment
        if tensor.begin != begin:
            how = "overlaps another tensor" if tensor.begin < begin else "leaves a hole"
            raise WeightsError(
                f"{path} is damaged ({tensor.name} begins at byte {tensor.begin}, not at "
                f"{begin}: it {how}). Download it again."
            )
        end = tensor.begin + tensor.data.nbytes
    if not 0 <= size - end <= -end % header.alignment:
        raise WeightsError(
            f"{path} is damaged (its tensors end at byte {end}, the file at {size}). Download it "
            "again."
        )
