"""The trunk's outputs for a data set, computed once.

The base is frozen, so the hidden states before the first edited site never change. They are
computed in lots of like lengths, one program each, and stored end to end without padding.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from mend_jax.data.bucketing import lots, overlapped
from mend_jax.files import array_checksum
from mend_jax.models.stages import Inputs, run_trunk
from mend_jax.parallel import fetch

TOKENS_PER_BATCH = 1024
"""Of a batch. Compiling its program takes about as long as running it, for SmolLM2 on two CPU
cores."""
PROGRAMS = 50
"""A program of its own must save at least such a part of all tokens, however many there are."""


class CacheError(RuntimeError):
    """A cache on disk that is no longer what was written."""


class TrunkCache:
    """Hidden states by token sequence. Built by `cache_trunk`; read-only afterwards.

    Of a cache on disk a checksum of each sequence is kept in memory, and looked at when it is read.
    """

    def __init__(self, rows: np.ndarray, places: dict[bytes, tuple[int, int]]) -> None:
        self._rows = rows
        self._places = places
        self.width: int = rows.shape[1]
        self.dtype = rows.dtype
        self._path = rows.filename if isinstance(rows, np.memmap) else None
        checked = places.values() if self._path else ()
        self._sums = {start: array_checksum(rows[start : start + n]) for start, n in checked}

    def lookup(self, tokens: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n d"]:
        """The trunk's output for one sequence.

        Raises:
          KeyError: it was not among the sequences the cache was built for.
          CacheError: the file was changed since it was written.
        """
        start, n = self._places[tokens.tobytes()]
        found = self._rows[start : start + n]
        if self._sums and array_checksum(found) != self._sums[start]:
            raise CacheError(
                f"{self._path}: rows {start} to {start + n} are not those that were "
                "written: the file was changed or is damaged. Begin again, with another --out"
            )
        return found

    def __len__(self) -> int:
        return len(self._places)


def can_be_cached(trunk: nn.Module) -> bool:
    """Whether the trunk's output is a function of one text: not if it reaches into a decoder."""
    return trunk.stop <= getattr(trunk, "decoding", trunk.stop)


def cache_trunk(
    trunk: nn.Module,
    params: PyTree,
    sequences: Iterable[Int[np.ndarray, "n"]],
    directory: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrunkCache:
    """Runs the trunk once over all different sequences.

    Args:
      trunk: the first part of `split(model, sites)`.
      sequences: int32 token sequences, repeats welcome.
      directory: keep the states there in a memory-mapped file, instead of in memory.
      progress: called with (tokens done, tokens in all).

    Raises:
      ValueError: there are no sequences, or an empty one.
    """
    unique = list({tokens.tobytes(): tokens for tokens in sequences}.values())
    sizes = [len(tokens) for tokens in unique]
    if min(sizes, default=0) == 0:
        raise ValueError("the trunk has no outputs for no tokens: sequences are missing or empty")
    total = sum(sizes)
    program = max(TOKENS_PER_BATCH, total / PROGRAMS)
    run = jax.jit(lambda params, x, mask: run_trunk(trunk, params, Inputs(x, mask=mask)).x)
    places: dict[bytes, tuple[int, int]] = {}
    rows: Any = None
    done = 0

    def started() -> Iterator[tuple[list[Any], jax.Array]]:
        for length, chosen in lots(sizes, program, rows_of):
            part = [unique[i] for i in chosen]
            x = np.zeros((rows_of(length), length), np.int32)
            mask = np.zeros(x.shape, bool)
            mask[:, 0] = True  # also of the rows that only fill up
            for i, tokens in enumerate(part):
                x[i, : len(tokens)], mask[i, : len(tokens)] = tokens, True
            yield part, run(params, x, mask)

    for part, output in overlapped(started()):
        states = fetch(output)
        if rows is None:
            rows = _allocate((total, states.shape[-1]), states.dtype, directory)
        for tokens, state in zip(part, states, strict=False):
            places[tokens.tobytes()] = (done, len(tokens))
            rows[done : done + len(tokens)] = state[: len(tokens)]
            done += len(tokens)
        progress(done, total)
    return TrunkCache(rows, places)


def rows_of(length: int) -> int:
    """Sequences of a batch."""
    return max(1, TOKENS_PER_BATCH // length)


def _allocate(shape: tuple[int, int], dtype: Any, directory: str | Path | None) -> np.ndarray:
    if directory is None:
        return np.empty(shape, dtype)
    Path(directory).mkdir(parents=True, exist_ok=True)
    path = Path(directory) / "trunk.npy"
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
