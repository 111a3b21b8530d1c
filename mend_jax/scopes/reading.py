"""Which states of a model a scope reads."""

from typing import NamedTuple


class Read(NamedTuple):
    """The stages before which the states are kept that a scope reads, and how many are late."""

    stages: tuple[int, ...]
    late: int


def stages_for(blocks: int, first: int, whole: bool = False) -> Read:
    """What a scope reads of a model of so many blocks: the tokens' own states, early and late ones.

    Args:
      first: number of the first stage that is edited, or that is no block of these.
      whole: a text is read as a whole: its latest states are read too, which know the most of it.

    Raises:
      ValueError: no block lies before it.
    """
    if first < 2:
        raise ValueError(
            "a scope reads what the blocks below the first edited one make of a text, and there is "
            "none: train an editor of later blocks only (--sites)"
        )
    middle, high = (min(1 + round(blocks * share), first) for share in (16 / 30, 22 / 30))
    late = {middle, first if whole else high}
    early = min(1 + round(blocks * 4 / 30), middle - 1)
    return Read(tuple(sorted({1, early} | late)), len(late))
