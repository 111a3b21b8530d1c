"""The safetensors format: the header's length (8 bytes), a JSON header, then the tensors' bytes.

Files are mapped, so that reading one tensor touches its own pages and copies nothing; and they are
written from an iterator, so that a shard is never in memory. (The `safetensors` package copies each
tensor that it reads, and wants all that it writes at once.) What that package refuses is refused
here, too: the ranges of the tensors have to cover the bytes once each, without holes.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import ml_dtypes
import numpy as np

from mend_jax.files import check_no_pointer, parse_json
from mend_jax.typed import checked
from mend_jax.weights.errors import WeightsError

FLOATS: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}
"""The names of those dtypes in a header that weights of a model can have here."""

BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
"""Of one value, by the names of all dtypes of the format."""

_MOST = 100_000_000
"""Bytes of a header, as the format has it."""


class Entry(TypedDict):
    """What a header says of one tensor."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]


class Metadata(TypedDict, total=False):
    """What a header may say of the whole file."""

    __metadata__: dict[str, str] | None


class Stored(NamedTuple):
    """One tensor of a file. dtype: as the header names it. data: its bytes, mapped, read-only."""

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray


def map_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors of a file; only the header is read.

    Raises:
      WeightsError: the header or the body is cut short, this is not a safetensors file, or tensors
        overlap, leave holes, or do not fit their shapes.
    """
    check_no_pointer(path, WeightsError)
    try:
        whole = np.memmap(path, np.uint8, "r")
        start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
        if len(whole) < 8 or start > min(len(whole), _MOST):
            raise ValueError(f"the header should end at byte {start} of {len(whole)}")
        text = whole[8:start].tobytes().decode()
        header = parse_json(text, "its header", ValueError)
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        checked(Metadata, header, "its header", ValueError)
        header.pop("__metadata__", None)
        entries = checked(dict[str, Entry], header, "its header", ValueError)
        _check_ranges(entries, len(whole) - start)
    except ValueError as error:
        raise WeightsError(
            f"{path} is cut short or not a safetensors file ({error}). Download it again."
        ) from error
    return {
        name: Stored(
            entry["dtype"],
            tuple(entry["shape"]),
            whole[slice(*(start + offset for offset in entry["data_offsets"]))],
        )
        for name, entry in entries.items()
    }


def _check_ranges(entries: Mapping[str, Entry], size: int) -> None:
    """Raises ValueError unless the tensors' bytes lie end to end, and are as many as they need."""
    for name, entry in entries.items():
        shape, offsets = entry["shape"], entry["data_offsets"]
        if len(offsets) != 2 or min((*shape, *offsets), default=0) < 0:
            raise ValueError(f"{name} has shape {shape} and bytes {offsets}")
        bits = BITS.get(entry["dtype"])
        if bits is None:
            raise ValueError(f"{name} is of the unknown dtype {entry['dtype']!r}")
        if 8 * (offsets[1] - offsets[0]) != bits * math.prod(shape):
            there = offsets[1] - offsets[0]
            raise ValueError(f"{name} has {there} bytes, which do not fit its shape")
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, after = entry["data_offsets"]
        if begin != end:
            how = "overlaps another tensor" if begin < end else "leaves a hole before it"
            raise ValueError(f"{name} begins at byte {begin}, not at {end}: it {how}")
        end = after
    if end != size:
        raise ValueError(f"the tensors should end at byte {end}, the file at {size}")


def write_safetensors(
    path: Path,
    kinds: Mapping[str, tuple[str, tuple[int, ...], int]],
    bodies: Iterable[np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Writes a file, one tensor after the other.

    Args:
      kinds: {name: (dtype as a header names it, shape, number of bytes)}.
      bodies: the tensors' bytes (uint8), in the order of `kinds`; dropped as soon as written.
      metadata: texts for the header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape, size) in kinds.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants the tensors aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for body in bodies:
            file.write(body.data)
