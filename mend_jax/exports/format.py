"""What a format of exports is, and what it is given: kept edits, and how to write them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from mend_jax.editors.held import Slots
from mend_jax.exports.card import Card
from mend_jax.factors import Dense, Edit, Factors, in_float32, total
from mend_jax.option_types import Gigabytes, Rank, Share
from mend_jax.saved.directory import SavedEditor

Stored = Literal["float32", "bfloat16"]
"""Of the weights in a file."""


@dataclass(frozen=True)
class How:
    """Options of the formats."""

    stored: Stored = "float32"
    """Of weights that are written (huggingface, gguf)."""
    shard_gb: Gigabytes = 5.0
    """Largest size of a file of weights, in GB (huggingface)."""
    error: Share = 1e-3
    """Largest share of a layer's edits, by their norm, that a low rank may lose (peft)."""
    rank: Rank = 512
    """Largest rank of a layer (peft)."""
    one_rank: bool = False
    """All layers get the largest rank, filled with zeros, for llama.cpp (peft)."""


class Job(NamedTuple):
    """What is to be exported.

    held: the edits of an editor with a scope, side by side.
    """

    saved: SavedEditor
    held: Slots
    card: Card
    how: How

    @property
    def edit(self) -> Edit:
        """All of them as one change of weights."""
        return without_scopes(self.held)


class Format(NamedTuple):
    """A format of exports.

    scopes: whether edits keep theirs. write(job, out) -> what there is to say of it.
    """

    scopes: bool
    write: Callable[[Job, Path], list[str]]


def without_scopes(held: Slots) -> dict[str, Factors | Dense]:
    """Scoped edits added up to one change of weights, which is felt everywhere: a plain edit."""
    return total(in_float32(held.kept.rows))
