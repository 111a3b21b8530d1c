"""What an editing method is: `Editor(init, calibrate, edit, observe, apply)`, pure functions.

Training, evaluation and the experiments call these and never ask which method it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import PRNGKeyArray, PyTree

from mend_jax.example import Example
from mend_jax.factors import Edit
from mend_jax.intercept import edited


class EditorState(NamedTuple):
    """phi: the editor's parameters (differentiated). stats: its running statistics (not)."""

    phi: PyTree
    stats: PyTree


class Editor(NamedTuple):
    """An editing method.

    init(key, params, example) -> state.
    calibrate(state, params, examples) -> stats: before training, with a batch of examples counted
      in, their outer and locality pairs too.
    edit(state, params, example) -> edit, for one example; vmap it for many independent edits.
    observe(state, params, examples) -> (stats, edits): the training form of `edit` for examples
      with a leading batch axis: the statistics with this batch counted in, and its edits made with
      them. Separate from `edit` so that a training step captures each example once.
    apply(state, function, edit) -> function after the edit.
    config: how to build it again (for saved editors).
    """

    init: Callable[[PRNGKeyArray, PyTree, Example], EditorState]
    calibrate: Callable[[EditorState, PyTree, Example], PyTree]
    edit: Callable[[EditorState, PyTree, Example], Edit]
    observe: Callable[[EditorState, PyTree, Example], tuple[PyTree, Edit]]
    apply: Callable[[EditorState, Callable[..., Any], Edit], Callable[..., Any]]
    config: dict[str, Any]


def calibrate_nothing(state: EditorState, params: PyTree, examples: Example) -> PyTree:
    """`Editor.calibrate` of methods without statistics."""
    del params, examples
    return state.stats


def observe_nothing(
    edit: Callable[[EditorState, PyTree, Example], Any],
) -> Callable[[EditorState, PyTree, Example], tuple[PyTree, Any]]:
    """`Editor.observe` of methods whose edits change no statistics."""

    def observe(state: EditorState, params: PyTree, examples: Example) -> tuple[PyTree, Any]:
        return state.stats, jax.vmap(edit, (None, None, 0))(state, params, examples)

    return observe


def untrained(
    edit: Callable[[EditorState, PyTree, Example], Edit], config: dict[str, Any]
) -> Editor:
    """An editor that has nothing to learn, and whose edit is a change of weights."""

    def init(key: PRNGKeyArray, params: PyTree, example: Example) -> EditorState:
        jax.eval_shape(edit, EditorState({}, {}), params, example)  # its errors come now
        return EditorState({}, {})

    return Editor(init, calibrate_nothing, edit, observe_nothing(edit), apply_edit, config)


def no_edit() -> Editor:
    """The editor that leaves the base as it is, to see what scores are worth."""
    return untrained(lambda state, params, example: {}, {"editor": "none"})


def apply_edit(
    state: EditorState, function: Callable[..., Any], edit: Edit
) -> Callable[..., Any]:
    """`Editor.apply` of methods whose edit is a change of weights."""
    del state
    return edited(function, edit)
