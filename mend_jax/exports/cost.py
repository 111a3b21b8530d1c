"""What edits lose with their scopes, and by rounding: the model's own words, asked and counted."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mend_jax.editors.base import apply_edit
from mend_jax.editors.held import Slots
from mend_jax.evaluation.generation import matches
from mend_jax.exports.format import Stored, without_scopes
from mend_jax.intercept import merge
from mend_jax.reports.before_after import before_after_of
from mend_jax.saved.directory import SavedEditor


class Said(NamedTuple):
    """Of the prompts that were asked: how many edits hold on their own, how many neighbours are
    answered as by the base."""

    hold: int
    stay: int


class Questions(NamedTuple):
    """edits: (prompt, target). neighbours: prompts that must stay. tokens: of an answer."""

    edits: Sequence[tuple[str, str]]
    neighbours: Sequence[str] = ()
    tokens: int = 12

    @property
    def prompts(self) -> list[str]:
        """Of all."""
        return [*(prompt for prompt, _ in self.edits), *self.neighbours]

    @property
    def lines(self) -> int:
        """Of the longest target."""
        return max((len(target.strip().splitlines()) for _, target in self.edits), default=1)


def in_scopes(saved: SavedEditor, held: Slots, questions: Questions) -> tuple[Said, list[str]]:
    """What is said under edits in their scopes; and the base's answers to all prompts."""
    answers = before_after_of(saved, questions.tokens).ask(held, questions.prompts, questions.lines)
    before = [answer.before for answer in answers]
    return _counted(questions, before, [answer.after for answer in answers]), before


def everywhere(
    saved: SavedEditor, held: Slots, questions: Questions, before: list[str], stored: Stored
) -> Said:
    """The same of the edits in the weights, which are rounded to those of a file."""
    params = rounded(merge(saved.base.params, without_scopes(held)), stored)
    plain = saved._replace(
        base=saved.base._replace(params=params), editor=saved.editor._replace(apply=apply_edit)
    )
    answers = before_after_of(plain, questions.tokens).ask({}, questions.prompts, questions.lines)
    return _counted(questions, before, [answer.after for answer in answers])


def rounded(params: PyTree, stored: Stored) -> PyTree:
    """Parameters as they come back from a file."""
    dtype = jnp.dtype(stored)

    def one(x: Any) -> Any:
        floats = jnp.issubdtype(x.dtype, jnp.floating)
        return x.astype(dtype).astype(x.dtype) if floats else x

    return jax.tree.map(one, params)


def _counted(questions: Questions, before: list[str], after: list[str]) -> Said:
    n = len(questions.edits)
    own = zip(questions.edits, after, strict=False)
    hold = sum(matches(said, target, "contains") for (_, target), said in own)
    return Said(hold, sum(a == b for a, b in zip(before[n:], after[n:], strict=True)))
