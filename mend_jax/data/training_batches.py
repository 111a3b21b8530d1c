"""The batches of a training run: which records a step takes, and which pairs of each.

Every batch is a function of (seed, step) alone, so that a resumed run goes on as if it had never
stopped.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from mend_jax.data.batches import Shapes, collate, conditions
from mend_jax.data.bucketing import LONG, SHORT
from mend_jax.data.encoding import Tokens
from mend_jax.data.messages import Chat
from mend_jax.data.token_records import TokenRecord, grouped
from mend_jax.data.trunk_cache import TrunkCache
from mend_jax.example import Example


class Draw(NamedTuple):
    """How many examples a training step takes, and how many pairs of each record.

    batch: examples of a step, of k records each.
    outer: of the edit input and its rephrases; the edit input is always the first of them.
    swap: any of a record's phrasings may be its edit input, not only its prompt. The record's
      prompt, edited by a rephrase, is an edit as well; more of them to learn from.
    near, far: of the locality prompts of this kind; those of no kind count as near. Those about the
      own subject score an editor, and do not train it. Of neither, there is an empty place.
    k: records that are edited at once, as one edit.
    """

    batch: int
    outer: int = 2
    near: int = 1
    far: int = 1
    swap: bool = False
    k: int = 1


def training_batches(
    records: Sequence[TokenRecord],
    shapes: Shapes,
    draw: Draw,
    seed: int,
    start: int = 0,
    cache: TrunkCache | None = None,
) -> Iterator[Example]:
    """Endless batches of examples, from step `start` on; each is a function of (seed, step) alone.

    Epochs are walked in a fresh random order; outer and locality pairs are drawn anew each time.
    """
    step = start
    while True:
        rng = np.random.default_rng((seed, 1, step))
        chosen = [records[i] for i in _walk(len(records), draw.batch * draw.k, seed, step)]
        outer = [_draw_outer(record, draw, rng) for record in chosen]
        edit = [row[:1] for row in outer]
        locality = [_draw_locality(record, draw, rng) for record in chosen]
        yield Example(
            collate(_joined(edit, draw.k), shapes.edit, cache),
            collate(_joined(outer, draw.k), shapes.outer, cache),
            collate(_joined(locality, draw.k), shapes.locality, cache),
            conditions(_joined(edit, draw.k), shapes.condition),
        )
        step += 1


class Parts(NamedTuple):
    """Records whose batches have shapes of their own; and the share of the steps that is long."""

    short: list[TokenRecord]
    long: list[TokenRecord]
    share: float


def parts_of(records: Sequence[TokenRecord]) -> Parts | None:
    """The short records and the long ones, where some are chats, which are several times as long as
    a sentence, and have a share of LONG at least; None, where all are of one kind."""
    if not any(isinstance(entry.record.prompt, Chat) for entry in records):
        return None
    parts: tuple[list[TokenRecord], list[TokenRecord]] = [], []
    for entry in records:
        longest = max(len(pair.tokens) for pair in (*entry.outer, *entry.locality))
        parts[longest > SHORT].append(entry)
    return Parts(*parts, max(LONG, len(parts[1]) / len(records))) if all(parts) else None


From: TypeAlias = Callable[[int], Iterator[Example]]
"""Batches from a step on."""


def in_turn(short: From, long: From, share: float, start: int = 0) -> Iterator[Example]:
    """Batches of both kinds, from step `start` on; of the steps a share, evenly, is long."""

    def before(step: int) -> int:
        return int(step * share)

    kinds = short(start - before(start)), long(before(start))
    for step in itertools.count(start):
        yield next(kinds[before(step + 1) > before(step)])


def _joined(rows: Sequence[list[Tokens | None]], k: int) -> list[list[Tokens | None]]:
    """k rows after each other as one."""
    return [[pair for row in group for pair in row] for group in grouped(rows, k)]


def _walk(n: int, batch: int, seed: int, step: int) -> list[int]:
    """Indices of a step: consecutive places in the concatenated permutations of all epochs."""
    places = range(step * batch, (step + 1) * batch)
    orders = {
        epoch: np.random.default_rng((seed, 0, epoch)).permutation(n)
        for epoch in {place // n for place in places}
    }
    return [int(orders[p // n][p % n]) for p in places]


def _draw_outer(
    record: TokenRecord, draw: Draw, rng: np.random.Generator
) -> list[Tokens | None]:
    """The edit input, then others; None where a record has too few phrasings."""
    order = rng.permutation(len(record.outer))
    first = order[0] if draw.swap else 0
    chosen = [first, *(i for i in order if i != first)][: draw.outer]
    return [*(record.outer[i] for i in chosen), *[None] * (draw.outer - len(chosen))]


def _draw_locality(
    record: TokenRecord, draw: Draw, rng: np.random.Generator
) -> list[Tokens | None]:
    row: list[Tokens | None] = []
    for kinds, k in ((("near", ""), draw.near), (("far",), draw.far)):
        pool = [p for p, kind in zip(record.locality, record.kinds, strict=True) if kind in kinds]
        chosen = [pool[i] for i in rng.permutation(len(pool))[:k]]
        row += [*chosen, *[None] * (k - len(chosen))]
    return row or [None]
