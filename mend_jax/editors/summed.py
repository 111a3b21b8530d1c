"""Many edits at once as the sum of edits that are made alone.

The paper makes k edits at once in two readings. Its text adds k edits, each made from the gradient
of its own pair; its code makes one edit from the gradient of the mean loss of all k (which is what
any editor does with an example of k edit pairs). `summed(editor)` is the first reading.
"""

import jax
from jaxtyping import PRNGKeyArray, PyTree

from mend_jax.editors.base import Editor, EditorState
from mend_jax.example import Example
from mend_jax.factors import Edit, total


def summed(editor: Editor) -> Editor:
    """The editor that edits each of the k pairs of `example.edit` alone, and adds the edits.

    The outer and locality pairs of an example stand in the order of its edits, as many for each.

    Args:
      editor: any whose edit is a change of weights.
    """

    def init(key: PRNGKeyArray, params: PyTree, example: Example) -> EditorState:
        each = jax.eval_shape(lambda x: jax.tree.map(lambda y: y[0], alone(batched(x))), example)
        return editor.init(key, params, each)

    def calibrate(state: EditorState, params: PyTree, examples: Example) -> PyTree:
        return editor.calibrate(state, params, alone(examples))

    def edit(state: EditorState, params: PyTree, example: Example) -> Edit:
        each = alone(batched(example))
        return total(jax.vmap(editor.edit, (None, None, 0))(state, params, each))

    def observe(state: EditorState, params: PyTree, examples: Example) -> tuple[PyTree, Edit]:
        stats, edits = editor.observe(state, params, alone(examples))
        batch = len(examples.edit.labels)
        together = jax.tree.map(lambda x: x.reshape(batch, -1, *x.shape[1:]), edits)
        return stats, jax.vmap(total)(together)

    return Editor(
        init, calibrate, edit, observe, editor.apply, editor.config | {"at_once": "summed"}
    )


def batched(example: Example) -> Example:
    """With a leading axis of one."""
    return jax.tree.map(lambda x: x[None], example)


def alone(examples: Example) -> Example:
    """Leading axes [batch, k p] of each kind of pair as [batch k, p]."""
    k = examples.edit.labels.shape[1]

    def apart(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0] * k, x.shape[1] // k, *x.shape[2:])

    return jax.tree.map(apart, examples)
