"""What a scope remembers of a text that is read in pieces, as in decoding with a cache."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Int, Shaped


class Memory(NamedTuple):
    """Of the positions that were read, under names; the model keeps it beside its keys and values.

    at: the positions of the tokens that are read now.
    recall(name) -> what was kept so far, [k, length, ...]; None: nothing.
    keep(name, new[k, n, ...]) -> the same, with what is new at its positions.
    """

    at: Int[Array, "k n"]
    recall: Callable[[str], Shaped[Array, "k length ..."] | None]
    keep: Callable[[str, Shaped[Array, "k n ..."]], Shaped[Array, "k length ..."]]
