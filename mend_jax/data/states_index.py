"""The index of kept states: which texts, in the order of their rows, and a checksum of each.

A safetensors file of `tokens` (int32, all texts on end), `lengths` (int64), `sums` (uint64, of each
text's states) and `whole`, a checksum of these three and of what made the states. An index that is
damaged, or of states that were made by something else, is read as an empty one.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mend_jax.files import checksum, replace_whole
from mend_jax.weights import WeightsError
from mend_jax.weights.safetensors_file import map_safetensors

Places = dict[bytes, tuple[int, int]]
"""{tokens: (first row, rows)}."""
_KINDS: dict[str, np.dtype] = {
    "tokens": np.dtype(np.int32), "lengths": np.dtype(np.int64), "sums": np.dtype(np.uint64),
}  # fmt: skip


def write_index(path: Path, places: Places, sums: Mapping[int, str], about: str) -> None:
    """Writes an index whole.

    Args:
      sums: checksums of the states by their first row, as `TrunkCache.checksums`. about: what made
        the states.
    """
    arrays: dict[str, np.ndarray] = {
        "tokens": np.frombuffer(b"".join(places), np.int32),
        "lengths": np.array([n for _, n in places.values()], np.int64),
        "sums": np.array([int(sums[start], 16) for start, _ in places.values()], np.uint64),
    }
    arrays["whole"] = np.array([_whole(arrays, about)], np.uint64)
    replace_whole(path, lambda draft: save_file(arrays, draft))


def read_index(path: Path, about: str) -> tuple[Places, dict[int, str]]:
    """(places, sums), as `write_index` was given them; both empty if the index is of no use."""
    try:
        stored = map_safetensors(path)
        arrays = {name: np.frombuffer(stored[name].data, kind) for name, kind in _KINDS.items()}
        (whole,) = np.frombuffer(stored["whole"].data, np.uint64)
        sound = int(whole) == _whole(arrays, about)
    except (WeightsError, OSError, KeyError, ValueError):
        sound = False
    if not sound:
        return {}, {}
    ends = np.cumsum(arrays["lengths"]).tolist()
    starts = [0, *ends[:-1]]
    places = {
        arrays["tokens"][start:end].tobytes(): (start, end - start)
        for start, end in zip(starts, ends, strict=True)
    }
    sums = (f"{int(x):016x}" for x in arrays["sums"])
    return places, dict(zip(starts, sums, strict=True))


def _whole(arrays: Mapping[str, np.ndarray], about: str) -> int:
    said = f"{about} {[len(arrays[name]) for name in _KINDS]}"
    return int(checksum(said, b"".join(arrays[name].tobytes() for name in _KINDS)), 16)
