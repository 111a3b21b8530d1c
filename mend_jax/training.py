"""Training an editor: one jitted edit-then-evaluate step, and the loop around it.

A step captures the batch's gradients, counts them into the statistics, makes the edits, scores
them, and moves phi by Adam. The base is never differentiated, never written, never donated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mend_jax.editors.base import Editor, EditorState, Example
from mend_jax.objectives import LogitsFn, LossFn, after_trunk, edit_then_evaluate


class TrainState(NamedTuple):
    """Everything that a step changes.

    skipped: steps whose gradient was not finite, and which therefore changed nothing.
    stalled: how many steps in a row had a gradient that was not finite, or exactly zero.
    """

    editor: EditorState
    optimiser: optax.OptState
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    stalled: Int[Array, ""]


class StepMetrics(NamedTuple):
    """Of one step: losses in nats (means over its edits), gradient norm before clipping."""

    loss: Float[Array, ""]
    edit_loss: Float[Array, ""]
    locality_loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]


Step = Callable[[TrainState, PyTree, Example], tuple[TrainState, StepMetrics]]


def editor_optimiser(
    learning_rate: optax.ScalarOrSchedule = 1e-6,
    alpha_learning_rate: optax.ScalarOrSchedule = 1e-4,
    clip: float = 100.0,
) -> optax.GradientTransformation:
    """Adam with the edit rates alpha in a group of their own, after clipping by global norm.

    The authors' second optimiser never moved alpha; this is what they meant (mend-code, trap 2).
    """

    def label(path: tuple[Any, ...], _: Array) -> str:
        return "alpha" if any(getattr(k, "key", None) == "alpha" for k in path) else "phi"

    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.multi_transform(
            {"phi": optax.adam(learning_rate), "alpha": optax.adam(alpha_learning_rate)},
            lambda phi: jax.tree_util.tree_map_with_path(label, phi),
        ),
    )


def init_state(
    editor: Editor,
    optimiser: optax.GradientTransformation,
    key: PRNGKeyArray,
    params: PyTree,
    example: Example,
) -> TrainState:
    """A fresh state; `example` is one example (shapes only), without the batch axis."""
    state = editor.init(key, params, example)
    zero = jnp.zeros((), jnp.int32)
    fresh = TrainState(state, optimiser.init(state.phi), zero, zero, zero)
    return jax.tree.map(jnp.array, fresh)  # no two leaves share a buffer: the step donates them


def make_calibrator(
    editor: Editor, trunk: nn.Module | None = None
) -> Callable[[TrainState, PyTree, Example], TrainState]:
    """`calibrate(state, params, examples) -> state`: statistics only, before the first step.

    The state is donated: do not use the old one again.
    """

    def calibrate(state: TrainState, params: PyTree, examples: Example) -> TrainState:
        examples = after_trunk(trunk, params, examples)
        stats = editor.calibrate(state.editor, params, examples)
        return state._replace(editor=state.editor._replace(stats=stats))

    return jax.jit(calibrate, donate_argnums=0)


def make_step(
    editor: Editor,
    loss: LossFn,
    logits: LogitsFn,
    optimiser: optax.GradientTransformation,
    c_edit: float = 0.1,
    c_loc: float = 1.0,
    trunk: nn.Module | None = None,
) -> Step:
    """The whole training step, jitted: `step(state, params, examples) -> (state, metrics)`.

    Args:
      editor, loss, logits: over the same model, or over the tail of a split model.
      c_edit, c_loc: weights of the outer loss and of the locality KL (paper: 0.1 and 1).
      trunk: run once, without gradient, over all inputs of the step; leave out if the examples
        hold its outputs already.

    The state is donated: do not use the old one again.
    """

    def step(
        state: TrainState, params: PyTree, examples: Example
    ) -> tuple[TrainState, StepMetrics]:
        examples = after_trunk(trunk, params, examples)

        def objective(phi: PyTree) -> tuple[Array, Any]:
            trial = EditorState(phi, state.editor.stats)
            return edit_then_evaluate(
                editor, trial, params, examples, loss, logits, c_edit, c_loc
            )

        gradient, (losses, stats) = jax.grad(objective, has_aux=True)(state.editor.phi)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm)
        updates, moved = optimiser.update(gradient, state.optimiser, state.editor.phi)
        phi = optax.apply_updates(state.editor.phi, updates)

        def keep(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        sound = EditorState(keep(phi, state.editor.phi), keep(stats, state.editor.stats))
        state = TrainState(
            sound,
            keep(moved, state.optimiser),
            state.step + 1,
            state.skipped + ~finite,
            jnp.where(finite & (norm > 0), 0, state.stalled + 1),
        )
        return state, StepMetrics(losses.total, losses.edit, losses.locality, norm)

    return jax.jit(step, donate_argnums=0)
