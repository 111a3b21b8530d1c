"""Held-out records as examples with all their pairs, and what is found of these by record again."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mend_jax.data.batches import Shapes, collate, conditions
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import KINDS
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.trunk_cache import TrunkCache
from mend_jax.evaluation.scores import Scores
from mend_jax.example import Example


def widths(records: Sequence[TokenRecord]) -> tuple[int, int]:
    """Most outer and most locality pairs of a record; at least one of each."""
    return (
        max(len(record.outer) for record in records),
        max(1, max(len(record.locality) for record in records)),
    )


def collate_records(
    groups: Sequence[Sequence[TokenRecord]],
    shapes: Shapes,
    width: tuple[int, int],
    cache: TrunkCache | None = None,
) -> Example:
    """One example for each group of records, with all their pairs: leading axes [groups, pairs].
    Outer and locality pairs are padded to one shape.

    Args:
      width: places for the outer and the locality pairs of every record.
    """
    outer = [[p for r in group for p in all_pairs(r, width)[: width[0]]] for group in groups]
    locality = [[p for r in group for p in all_pairs(r, width)[width[0] :]] for group in groups]
    edits = [[r.edit for r in group] for group in groups]
    scored = max(shapes.outer[0], shapes.locality[0]), max(shapes.outer[1], shapes.locality[1])
    return Example(
        collate(edits, shapes.edit, cache),
        collate(outer, scored, cache),
        collate(locality, scored, cache),
        conditions(edits, shapes.condition),
    )


def all_pairs(record: TokenRecord, width: tuple[int, int]) -> list[Tokens | None]:
    """The outer pairs, then the locality pairs, each filled up with None to its width."""
    return [*_fill(record.outer, width[0]), *_fill(record.locality, width[1])]


def as_scores(found: dict[str, np.ndarray], records: Sequence[TokenRecord]) -> Scores:
    """Scores [records, pairs] with NaN where a record has no such pair."""
    no_outer, no_locality = missing(records)
    values = {
        name: x
        if x.ndim == 1
        else np.where(no_outer if name.startswith("success") else no_locality, np.nan, x)
        for name, x in found.items()
    }
    places = {kind: place for place, kind in enumerate(KINDS)}
    width = no_locality.shape[1]
    kinds = [[places.get(kind, 0) for kind in _fill(r.kinds, width)] for r in records]
    return Scores(**values, kinds=np.asarray(kinds))


def missing(records: Sequence[TokenRecord]) -> tuple[np.ndarray, np.ndarray]:
    """bool[records, pairs] of the outer and of the locality pairs: where a record has none."""
    outer, locality = widths(records)
    lengths = np.asarray([[len(r.outer), len(r.locality)] for r in records])
    return np.arange(outer) >= lengths[:, :1], np.arange(locality) >= lengths[:, 1:]


def _fill(items: Sequence[Any], n: int) -> list[Any]:
    return [*items, *[None] * (n - len(items))]
