"""From records to arrays: tokens once, then right-padded batches of fixed shapes.

Padding is to the right, so causal attention never sees it; other models get the mask. Unused `read`
entries point at position 0 with label -100.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mend_jax.data.bucketing import ANSWERS, LENGTHS, bucket
from mend_jax.data.encoding import Tokens
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.trunk_cache import TrunkCache
from mend_jax.example import Example, Pair
from mend_jax.models.stages import Inputs, Seen
from mend_jax.objectives import IGNORED


class Shapes(NamedTuple):
    """Padded (length, answers) of each role; one shape each, so one program for a data set.

    condition: length of the edits as text, longer ones are cut; 0: examples have none.
    """

    edit: tuple[int, int]
    outer: tuple[int, int]
    locality: tuple[int, int]
    condition: int = 0

    @property
    def alike(self) -> "Shapes":
        """All roles padded to the longest, so that they can pass a model together."""
        lengths, answers = zip(self.edit, self.outer, self.locality, strict=True)
        one = max(lengths), max(answers)
        return Shapes(one, one, one, self.condition)


def shapes_of(records: Sequence[TokenRecord], swap: bool = False) -> Shapes:
    """The smallest buckets that hold every pair of every record, role by role.

    With `swap`, any phrasing of a record may be its edit input.
    """
    edits = [p for r in records for p in (r.outer if swap else (r.edit,))]
    outer = [p for r in records for p in r.outer]
    locality = [p for r in records for p in r.locality]
    return Shapes(_smallest(edits), _smallest(outer), _smallest(locality), _longest_text(edits))


def shapes_of_edits(edits: Sequence[Tokens]) -> Shapes:
    """The buckets of edit pairs that nothing is scored with."""
    shape = _smallest(edits)
    return Shapes(shape, shape, shape, _longest_text(edits))


def _smallest(pairs: Sequence[Tokens]) -> tuple[int, int]:
    length = max((len(p.tokens) for p in pairs), default=1)
    answers = max((len(p.labels) for p in pairs), default=1)
    return bucket(length, LENGTHS), bucket(answers, ANSWERS)


def _longest_text(edits: Sequence[Tokens]) -> int:
    """The bucket of their condition texts; 0 if one has none."""
    lengths = [0 if p.condition is None else len(p.condition) for p in edits]
    return bucket(min(max(lengths), LENGTHS[-1]), LENGTHS) if all(lengths) and lengths else 0


def collate(
    pairs: Sequence[Sequence[Tokens | None]],
    shape: tuple[int, int],
    cache: TrunkCache | None = None,
) -> Pair:
    """Pads to one array per field: Pair(Inputs(x, read, mask, target), labels), leading axes
    [edits, k]. Of read and target, a model takes the one that it knows.

    Args:
      pairs: k pairs for each edit; None is an empty place (no label, scored nowhere).
      shape: (length, answers).
      cache: with it, x holds the trunk's outputs float[edits, k, length, d] instead of tokens; and
        `seen`, what the trunk kept beside them.
    """
    length, answers = shape
    lead = (len(pairs), max(len(row) for row in pairs))
    read: Any = np.zeros((*lead, answers), np.int32)
    labels = np.full((*lead, answers), IGNORED, np.int32)
    wide, dtype = ((), np.int32) if cache is None else ((cache.width,), cache.dtype)
    x: Any = np.zeros((*lead, length, *wide), dtype)
    mask: Any = np.zeros((*lead, length), bool)
    mask[..., 0] = True  # also in an empty place: attention to nothing at all has no mean
    target: Any = np.zeros((*lead, answers), np.int32)
    kept = 0 if cache is None else cache.kept
    passed: Any = np.zeros((*lead, length), np.int32)
    states: Any = np.zeros((*lead, length, kept, *wide), dtype)
    for i, row in enumerate(pairs):
        for j, pair in enumerate(row):
            if pair is None:
                continue
            n, a = len(pair.tokens), len(pair.labels)
            x[i, j, :n] = pair.tokens if cache is None else cache.lookup(pair.tokens)
            mask[i, j, :n] = True
            if cache is not None and kept:
                passed[i, j, :n], states[i, j, :n] = pair.tokens, cache.states(pair.tokens)
            read[i, j, :a], labels[i, j, :a] = pair.read, pair.labels
            if pair.target is not None:
                target[i, j, :a] = pair.target
    seen = Seen(passed, states, mask) if kept else None
    inputs = Inputs(x, read, mask=mask, target=target, seen=seen)
    return Pair(inputs, labels)


def conditions(
    pairs: Sequence[Sequence[Tokens | None]], length: int
) -> Int[np.ndarray, "edits k length"] | None:
    """The edits as texts, -1 after their end; None for a length of 0."""
    if not length:
        return None
    texts = np.full((len(pairs), max(len(row) for row in pairs), length), -1, np.int32)
    for i, row in enumerate(pairs):
        for j, pair in enumerate(row):
            if pair is not None and pair.condition is not None:
                text = pair.condition[:length]
                texts[i, j, : len(text)] = text
    return texts


def edit_examples(
    pairs: Sequence[Sequence[Tokens | None]], shapes: Shapes, cache: TrunkCache | None = None
) -> Example:
    """Examples to edit with, and to score nothing: the edit pair stands for the others too."""
    pair = collate(pairs, shapes.edit, cache)
    return Example(pair, pair, pair, conditions(pairs, shapes.condition))
