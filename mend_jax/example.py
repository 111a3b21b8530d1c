"""What an editor is given: pairs of what goes into a base and what should come out."""

from typing import Any, NamedTuple

from jaxtyping import PyTree


class Pair(NamedTuple):
    """What goes into the base and what should come out.

    inputs: the model's inputs (or its trunk's output), e.g. `models.stages.Inputs`.
    labels: int32[k, answers], aligned with the logits; -100 where nothing is scored.
    """

    inputs: PyTree
    labels: Any


class Example(NamedTuple):
    """One edit: what to learn, what scores it, what must not move, KE's condition text."""

    edit: Pair  # (x_e, y_e)
    outer: Pair  # (x'_e, y'_e)
    locality: Pair
    condition: Any = None
