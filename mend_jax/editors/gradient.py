"""Editors that transform the fine-tuning gradient of one example.

    edit = chain(capture(loss)(theta, x_e, y_e))                (paper, Algorithm 2)
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mend_jax.editors.base import Editor, EditorState, apply_edit
from mend_jax.example import Example, Pair
from mend_jax.factors import Edit, Factors
from mend_jax.intercept import capture
from mend_jax.links import Around, Link
from mend_jax.sites import Sites


def gradient_editor(loss: Callable[..., Float[Array, ""]], at: Sites, chain: Link) -> Editor:
    """The editor that captures the gradient of `loss(params, example.edit)` and applies `chain`.

    Args:
      loss: any scalar function of (params, pair); gradients reach only the sites.
      at: the sites (a regular expression, or names).
      chain: a link, usually `chain(...)` of several.
    """
    gradient = capture(loss, at)

    def factors_of(params: PyTree, pair: Pair) -> dict[str, Factors]:
        return jax.lax.stop_gradient(gradient(params, pair)[1])

    def one_by_one(params: PyTree, pairs: Pair) -> dict[str, Factors]:
        """Factors of every pair for itself: leading axes [edits, k]."""
        alone = jax.tree.map(lambda x: x[:, :, None], pairs)
        return jax.vmap(jax.vmap(factors_of, (None, 0)), (None, 0))(params, alone)

    def init(key: PRNGKeyArray, params: PyTree, example: Example) -> EditorState:
        shapes = jax.eval_shape(factors_of, params, example.edit)
        return EditorState(*chain.init(key, shapes))

    def calibrate(state: EditorState, params: PyTree, examples: Example) -> PyTree:
        factors = jax.vmap(factors_of, in_axes=(None, 0))(params, examples.edit)
        around = Around(*(one_by_one(params, x) for x in (examples.outer, examples.locality)))
        return chain.observe(state.phi, state.stats, factors, around)

    def edit(state: EditorState, params: PyTree, example: Example) -> Edit:
        return chain.apply(state.phi, state.stats, factors_of(params, example.edit))

    def observe(state: EditorState, params: PyTree, examples: Example) -> tuple[PyTree, Edit]:
        factors = jax.vmap(factors_of, in_axes=(None, 0))(params, examples.edit)
        stats = chain.observe(jax.lax.stop_gradient(state.phi), state.stats, factors)
        edits = jax.vmap(chain.apply, in_axes=(None, None, 0))(state.phi, stats, factors)
        return stats, edits

    config = {"editor": "mend", "options": {"chain": chain.config}}
    return Editor(init, calibrate, edit, observe, apply_edit, config)
