"""What a command knows of an editing method: how it is made, and what it is trained with.

Each editor's file ends with its own `Method`; `registry.py` lists them by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from jaxtyping import PyTree

from mend_jax.editors.base import Editor
from mend_jax.example import Example, Pair
from mend_jax.objectives import Outputs

AtOnce = Literal["joint", "summed", "solved"]
"""How several edits are made at once: one gradient of their mean loss, as in the authors' code; or
each alone, and held together in one of the ways of `registry.HOLDINGS`."""


class Ground(NamedTuple):
    """What a method may look at before it is made, to choose its options.

    outputs, params, example: of the tail of the base, and the shapes of one training example.
    localities(): locality pairs of training records, tokens [n, 1, ...].
    tokens(text) -> ids of a piece of text, as it stands within another. marks() -> how many tokens
    the base's tokenizer puts before every text, and after it.
    """

    outputs: Outputs
    params: PyTree
    example: Example
    localities: Callable[[], Pair]
    tokens: Callable[[str], list[int]]
    marks: Callable[[], tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Of a method that leaves nothing to choose."""


class Method(NamedTuple):
    """An editing method by name.

    make(outputs, at, **options) -> editor, over the outputs of a model or of its tail. The options
      are what config.json can hold, under "options": a saved editor is made of them again.
    options: a frozen dataclass of what a command line may set.
    choose(options, ground) -> what `make` is given, by default the options as they are.
    trained_with(options) -> options of a training run in the place of the run's own, if the user
      has not set these.
    at_once: the ways in which it makes several edits, the first by default.
    together: all held-out edits are made as one, and scored under it.
    sites(options, model, sites) -> where it edits the base, which is cut there: by default at the
      run's sites. Nowhere, (): it takes the whole base.
    within(options, late) -> what `make` is given if the edits are to be held in a scope, by
      default the same; raises ValueError for a method that has no use for one. late: as of
      `editors.scoped`.
    """

    make: Callable[..., Editor]
    options: type[Any] = NoOptions
    choose: Callable[[Any, Ground], dict[str, Any]] = lambda options, ground: asdict(options)
    trained_with: Callable[[Any], dict[str, Any]] = lambda options: {"calibrate": 0}
    at_once: tuple[AtOnce, ...] = ("joint",)
    together: bool = False
    sites: Callable[[Any, Any, tuple[str, ...]], tuple[str, ...]] = lambda options, model, at: at
    within: Callable[[dict[str, Any], Sequence[str]], dict[str, Any]] = lambda options, _: options

    def way(self, wanted: AtOnce, k: int) -> AtOnce:
        """How k edits are made, if `wanted` is asked for."""
        if wanted in self.at_once:
            return wanted
        return self.at_once[0] if k > 1 else "joint"
