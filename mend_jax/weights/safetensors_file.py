"""The safetensors format: the header's length (8 bytes), a JSON header, then the tensors' bytes.

Files are mapped, so that reading one tensor touches its own pages and copies nothing; and they are
written from an iterator, so that a shard is never in memory. (The `safetensors` package copies each
tensor that it reads, and wants all that it writes at once.)
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from mend_jax.weights.source import WeightsError

FLOATS: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}
"""The names of those dtypes in a header that weights of a model can have here."""


class Stored(NamedTuple):
    """One tensor of a file. dtype: as the header names it. data: its bytes, mapped, read-only."""

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray


def map_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors of a file; only the header is read.

    Raises:
        WeightsError: the header or the body is cut short, or this is not a safetensors file.
    """
    try:
        whole = np.memmap(path, np.uint8, "r")
        start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
        if len(whole) < 8 or start > len(whole):
            raise ValueError(f"the header should end at byte {start} of {len(whole)}")
        header = json.loads(whole[8:start].tobytes())
        header.pop("__metadata__", None)
        tensors, last = {}, start
        for name, entry in header.items():
            begin, end = (start + offset for offset in entry["data_offsets"])
            tensors[name] = Stored(entry["dtype"], tuple(entry["shape"]), whole[begin:end])
            last = max(last, end)
            itemsize = np.dtype(FLOATS.get(entry["dtype"], np.void)).itemsize
            if itemsize and end - begin != itemsize * math.prod(entry["shape"]):
                raise ValueError(f"{name} has {end - begin} bytes, which do not fit its shape")
        if last != len(whole):
            raise ValueError(f"the tensors should end at byte {last}, the file at {len(whole)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is cut short or not a safetensors file ({error}). Download it again."
        ) from error
    return tensors


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
