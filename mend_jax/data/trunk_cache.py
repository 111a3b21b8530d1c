"""The trunk's outputs for a data set, computed once.

The base is frozen, so the hidden states before the first edited site never change. They are
computed in lots of like lengths, one program each, and stored end to end without padding.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

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

    Beside the trunk's output, a row has those of the states that the trunk was told to `keep`.

    Of a cache on disk a checksum of each sequence is kept in memory, and looked at when it is read.
    `checksums` are those, by the first row of each.
    """

    def __init__(
        self,
        rows: np.ndarray,
        places: dict[bytes, tuple[int, int]],
        path: Path | None = None,
        kept: int = 0,
    ) -> None:
        """With `path`, the rows are mapped from that file. kept: states beside a row's first."""
        self._rows = rows
        self._places = places
        self.kept = kept
        self.width: int = rows.shape[1] // (1 + kept)
        self.dtype = rows.dtype
        self._path = path
        checked = places.values() if path else ()
        self.checksums = {start: array_checksum(rows[start : start + n]) for start, n in checked}

    def lookup(self, tokens: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n d"]:
        """The trunk's output for one sequence.

        Raises:
          KeyError, CacheError: as `states`.
        """
        return self._row(tokens)[:, : self.width]

    def states(self, tokens: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n kept d"]:
        """The states that the trunk kept of one sequence.

        Raises:
          KeyError: it was not among the sequences the cache was built for.
          CacheError: the file was changed since it was written.
        """
        return self._row(tokens)[:, self.width :].reshape(len(tokens), self.kept, self.width)

    def _row(self, tokens: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n all"]:
        start, n = self._places[tokens.tobytes()]
        found = self._rows[start : start + n]
        if self.checksums and array_checksum(found) != self.checksums[start]:
            raise CacheError(
                f"{self._path}: rows {start} to {start + n} are not those that were written: the "
                "file was changed or is damaged. Begin again, with another --out"
            )
        return found

    def __contains__(self, tokens: Int[np.ndarray, "n"]) -> bool:
        return tokens.tobytes() in self._places

    def __len__(self) -> int:
        return len(self._places)


class Batch(NamedTuple):
    """Sequences that go through the trunk together, padded to one length."""

    length: int
    texts: list[Int[np.ndarray, "_"]]

    @property
    def padded(self) -> tuple[Int[np.ndarray, "rows length"], Bool[np.ndarray, "rows length"]]:
        """The tokens, and which are no padding (of rows that only fill up, the first)."""
        x = np.zeros((rows_of(self.length), self.length), np.int32)
        mask = np.zeros(x.shape, bool)
        mask[:, 0] = True
        for i, tokens in enumerate(self.texts):
            x[i, : len(tokens)], mask[i, : len(tokens)] = tokens, True
        return x, mask


def batches_of(sequences: Iterable[Int[np.ndarray, "_"]]) -> tuple[int, Iterator[Batch]]:
    """(tokens in all, batches of all different sequences), in the order in which they are kept.

    Raises:
      ValueError: there are no sequences, or an empty one.
    """
    unique = list({tokens.tobytes(): tokens for tokens in sequences}.values())
    sizes = [len(tokens) for tokens in unique]
    if min(sizes, default=0) == 0:
        raise ValueError("the trunk has no outputs for no tokens: sequences are missing or empty")
    total = sum(sizes)
    chosen = lots(sizes, max(TOKENS_PER_BATCH, total / PROGRAMS), rows_of)
    return total, (Batch(length, [unique[i] for i in part]) for length, part in chosen)


def cache_trunk(
    trunk: nn.Module,
    params: PyTree,
    sequences: Iterable[Int[np.ndarray, "_"]],
    directory: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    dtype: Any = None,
) -> TrunkCache:
    """Runs the trunk once over all different sequences.

    Args:
      trunk: the first part of `split(model, sites)`.
      sequences: int32 token sequences, repeats welcome.
      directory: keep the states there in a memory-mapped file, instead of in memory. It is put in
        place whole, beside those of other processes of a run; one that another process reads from
        stays whole for it.
      progress: called with (tokens done, tokens in all).
      dtype: of what is kept (None: as the trunk makes it).

    Raises:
      ValueError: there are no sequences, or an empty one.
      OSError: there is no room for the file.
    """
    total, batches = batches_of(sequences)

    @jax.jit
    def run(params: PyTree, x: Array, mask: Array) -> Array:
        rows = _row_of(run_trunk(trunk, params, Inputs(x, mask=mask)))
        return rows.astype(dtype or rows.dtype)

    places: dict[bytes, tuple[int, int]] = {}
    done = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal done
        for batch, output in overlapped((b, run(params, *b.padded)) for b in batches):
            for tokens, state in zip(batch.texts, fetch(output), strict=False):
                places[tokens.tobytes()] = (done, len(tokens))
                done += len(tokens)
                yield state[: len(tokens)]
            progress(done, total)

    made = blocks()
    first = next(made)
    every, shape = itertools.chain([first], made), (total, first.shape[1])
    kept = len(getattr(trunk, "keep", ()))
    if directory is None:
        return TrunkCache(_in_memory(every, shape, first.dtype), places, kept=kept)
    index = jax.process_index()
    path = Path(directory) / ("trunk.npy" if index == 0 else f"trunk.{index}.npy")
    return TrunkCache(_on_disk(every, shape, first.dtype, path), places, path, kept)


def _row_of(carry: Inputs) -> Array:
    """The states of every position side by side."""
    if carry.seen is None:
        return carry.x
    kept = carry.seen.states.reshape(*carry.x.shape[:-1], -1)
    return jnp.concatenate([carry.x, kept], axis=-1)


def rows_of(length: int) -> int:
    """Sequences of a batch."""
    return max(1, TOKENS_PER_BATCH // length)


def _in_memory(
    blocks: Iterable[Shaped[np.ndarray, "_ d"]], shape: tuple[int, int], dtype: Any
) -> Shaped[np.ndarray, "rows d"]:
    """The blocks on end."""
    rows, done = np.empty(shape, dtype), 0
    for block in blocks:
        rows[done : done + len(block)] = block
        done += len(block)
    return rows


def _on_disk(
    blocks: Iterable[Shaped[np.ndarray, "_ d"]], shape: tuple[int, int], dtype: Any, path: Path
) -> Shaped[np.ndarray, "rows d"]:
    """The blocks on end in a file, which is named once it is whole, and mapped to be read.

    They are written, not set in a memory map: of a full disk, only that tells with an error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    handle, name = tempfile.mkstemp(".draft", "trunk.", path.parent)
    draft = Path(name)
    try:
        with open(handle, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            for block in blocks:
                file.write(block.tobytes())
        rows = np.memmap(draft, dtype, "r", start, shape)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return rows
