"""Few shapes, and little padding: a data set is cut into lots that are padded to one shape each.

More lots pad less, and each needs a program of its own, which takes time to compile.
"""

import bisect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

LENGTHS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128)
"""To which texts are padded, in tokens."""
ANSWERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""To which answers are."""
SHORT = 32
"""Tokens of a text that is not long, where some are: chats, say."""
LONG = 0.2
"""Share of the batches in training that are of long ones, where there are some."""
Started = TypeVar("Started")


def bucket(n: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds n.

    Raises:
      ValueError: none does.
    """
    if n > buckets[-1]:
        raise ValueError(f"a text of {n} tokens is too long: at most {buckets[-1]} fit")
    return buckets[bisect.bisect_left(buckets, n)]


def cuts(sizes: Sequence[int], program: float) -> list[int]:
    """The largest size of each lot, ascending, if every item is padded to the largest of its lot.

    The sum of all padded sizes, and of `program` for every lot, is the least there is: dynamic
    programming over the sizes that occur.

    Args:
      program: what compiling a program takes, in the unit of the sizes.
    """
    values, counts = np.unique(sizes, return_counts=True)
    items = [0, *np.cumsum(counts)]
    best: list[tuple[float, list[int]]] = [(0.0, [])]  # of the smallest n values
    for n, largest in enumerate(values.tolist(), 1):
        ways = [
            (cost + (items[n] - items[m]) * largest + program, [*before, largest])
            for m, (cost, before) in enumerate(best)
        ]
        best.append(min(ways))
    return best[-1][1]


def lots(
    sizes: Sequence[int], program: float, room: Callable[[int], int]
) -> Iterator[tuple[int, list[int]]]:
    """(size to pad to, indices of the items) of each batch, from the smallest lot on.

    Items that fill no batch of their lot wait for the next one; only the last batch is not full.

    Args:
      room: items of a batch, by the size that they are padded to.
    """
    waiting: list[int] = []
    ends = cuts(sizes, program)
    for smaller, size in zip((-1, *ends), ends, strict=False):
        waiting += [i for i, own in enumerate(sizes) if smaller < own <= size]
        while len(waiting) >= room(size) or (waiting and size == ends[-1]):
            yield size, waiting[: room(size)]
            waiting = waiting[room(size) :]


def overlapped(started: Iterable[Started], ahead: int = 4) -> Iterator[Started]:
    """The same items, each after `ahead` more have been started.

    JAX computes in the background: a batch runs while the next ones are collated, and their program
    is compiled.
    """
    running: deque[Started] = deque()
    for item in started:
        running.append(item)
        if len(running) > ahead:
            yield running.popleft()
    yield from running
