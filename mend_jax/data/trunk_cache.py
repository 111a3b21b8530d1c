"""The trunk's outputs for a data set, computed once.

The base is frozen, so the hidden states before the first edited site never change. They are
computed in batches of fixed shapes, one for each bucket of lengths, and stored end to end without
padding. Sequences that fill no batch of their bucket wait for the next longer one: compiling a
program, or filling a batch up, takes longer than a little padding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from mend_jax.models.stages import Inputs, run_trunk
from mend_jax.parallel import fetch

TOKENS_PER_BATCH = 1024


class TrunkCache:
    """Hidden states by token sequence. Built by `cache_trunk`; read-only afterwards."""

    def __init__(self, rows: np.ndarray, places: dict[bytes, tuple[int, int]]) -> None:
        self._rows = rows
        self._places = places
        self.width: int = rows.shape[1]
        self.dtype = rows.dtype

    def lookup(self, tokens: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n d"]:
        """The trunk's output for one sequence.

        Raises:
          KeyError: it was not among the sequences the cache was built for.
        """
        start, n = self._places[tokens.tobytes()]
        return self._rows[start : start + n]

    def __len__(self) -> int:
        return len(self._places)


def can_be_cached(trunk: nn.Module) -> bool:
    """Whether the trunk's output is a function of one text: not if it reaches into a decoder."""
    return trunk.stop <= getattr(trunk, "decoding", trunk.stop)


def cache_trunk(
    trunk: nn.Module,
    params: PyTree,
    sequences: Iterable[Int[np.ndarray, "n"]],
    lengths: Sequence[int],
    directory: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrunkCache:
    """Runs the trunk once over all different sequences.

    Args:
      trunk: the first part of `split(model, sites)`.
      sequences: int32 token sequences, repeats welcome.
      lengths: bucket lengths, ascending; one program is compiled for each that is used.
      directory: keep the states there in a memory-mapped file, instead of in memory.
      progress: called with (tokens done, tokens in all).
    """
    unique = {tokens.tobytes(): tokens for tokens in sequences}
    total = sum(len(tokens) for tokens in unique.values())
    run = jax.jit(lambda params, x, mask: run_trunk(trunk, params, Inputs(x, mask=mask)).x)
    places: dict[bytes, tuple[int, int]] = {}
    rows: Any = None
    done = 0
    for size, length, part in trunk_batches(list(unique.values()), lengths):
        x, mask = np.zeros((size, length), np.int32), np.zeros((size, length), bool)
        mask[:, 0] = True  # also of the rows that only fill up
        for i, tokens in enumerate(part):
            x[i, : len(tokens)], mask[i, : len(tokens)] = tokens, True
        states = fetch(run(params, x, mask))
        if rows is None:
            rows = _allocate((total, states.shape[-1]), states.dtype, directory)
        for tokens, state in zip(part, states, strict=False):
            places[tokens.tobytes()] = (done, len(tokens))
            rows[done : done + len(tokens)] = state[: len(tokens)]
            done += len(tokens)
        progress(done, total)
    return TrunkCache(rows, places)


def trunk_batches(
    sequences: list[np.ndarray], lengths: Sequence[int]
) -> Iterator[tuple[int, int, list[np.ndarray]]]:
    """(rows, length, sequences) of each batch; only the last has fewer sequences than rows."""
    longest = max(len(tokens) for tokens in sequences)
    last = next(n for n in lengths if n >= longest)
    waiting: list[np.ndarray] = []
    for shorter, length in zip((0, *lengths), lengths, strict=False):
        waiting += [tokens for tokens in sequences if shorter < len(tokens) <= length]
        size = max(1, TOKENS_PER_BATCH // length)
        while len(waiting) >= size or (waiting and length == last):
            yield size, length, waiting[:size]
            waiting = waiting[size:]


def _allocate(shape: tuple[int, int], dtype: Any, directory: str | Path | None) -> np.ndarray:
    if directory is None:
        return np.empty(shape, dtype)
    Path(directory).mkdir(parents=True, exist_ok=True)
    path = Path(directory) / "trunk.npy"
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
