"""Edits that act where an answer is given, and nowhere else: as in a scope that is never wrong.

It is what an editor is trained under that will be given a scope (`editors.scoped`): from the last
token of a prompt until the target is said, the edit acts; the rest of the text is the base's.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from mend_jax.editors.base import Editor, EditorState
from mend_jax.example import Pair
from mend_jax.intercept import edited
from mend_jax.objectives import IGNORED


def answering(editor: Editor, late: Collection[str]) -> Editor:
    """The editor whose edits act at those positions of a pair only that are read to score it.

    Its `apply` takes functions of (params, pair).

    Args:
      editor: its edits are changes of weights.
      late: the sites that see no positions but those `read`.
    """

    def apply(
        state: EditorState, function: Callable[..., Any], edit: Any
    ) -> Callable[..., Any]:
        del state

        def after(params: PyTree, pair: Pair) -> Any:
            every, all_read = where_answered(pair), jnp.ones(pair.inputs.read.shape, bool)
            at = {site: all_read if site in late else every for site in edit}
            return edited(function, edit, at)(params, pair)

        return after

    return editor._replace(apply=apply)


def where_answered(pair: Pair) -> Bool[Array, "k length"]:
    """The positions of a causal text whose logits are scored."""
    read, length = pair.inputs.read, pair.inputs.x.shape[1]
    there = jax.nn.one_hot(read, length, dtype=bool)
    return jnp.any(there & (pair.labels != IGNORED)[..., None], axis=1)
