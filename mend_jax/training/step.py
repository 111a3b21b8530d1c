"""The training step: edit, then evaluate, and move phi; jitted whole.

A step captures the batch's gradients, counts them into the statistics, makes the edits, scores
them, and moves phi by the meta-gradient. The base is never differentiated, written or donated.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree

from mend_jax.editors.base import Editor, EditorState
from mend_jax.example import Example
from mend_jax.objectives import (
    IGNORED,
    LogitsFn,
    LossFn,
    after_trunk,
    after_trunk_at_once,
    kl_divergence,
    mean_where,
    negative_log_likelihood,
    said_at_once,
)
from mend_jax.parallel import replicated, split_examples
from mend_jax.training.state import Placement, TrainState, beside_phi, keep_place


class Objective(NamedTuple):
    """What training an editor lowers: c_edit L_e + c_loc L_loc (paper, Algorithm 1: 0.1 and 1).

    loss: scores the outer pair after the edit; None is the negative log-likelihood of its `logits`,
      for which outer and locality pairs pass the edited weights together.
    logits: compared before and after on locality. Both over the same model as the editor, or over
      the tail of a split model.
    """

    loss: LossFn | None
    logits: LogitsFn
    c_edit: float = 0.1
    c_loc: float = 1.0


class Losses(NamedTuple):
    """Means over a batch of edits, in nats."""

    total: Float[Array, ""]
    edit: Float[Array, ""]
    locality: Float[Array, ""]


def edit_then_evaluate(
    editor: Editor, objective: Objective, state: EditorState, params: PyTree, examples: Example
) -> tuple[Float[Array, ""], tuple[Losses, Any]]:
    """The editor's training loss on a batch of independent edits, and its new statistics.

    Edits are made one per example and evaluated side by side, vmapped over shared weights.

    Args:
      examples: leading axis = edits.

    Returns:
      total, (losses, stats).
    """
    loss, logits, c_edit, c_loc = objective
    stats, edits = editor.observe(state, params, examples)

    def one(edit: Any, example: Example) -> tuple[Array, Array]:
        outer, locality = example.outer, example.locality
        before = jax.lax.stop_gradient(logits(params, locality))
        changed = editor.apply(state, logits, edit)
        if loss is None:
            said, after = said_at_once(changed, params, outer, locality)
            l_edit = negative_log_likelihood(said, outer.labels)
        else:
            l_edit = editor.apply(state, loss, edit)(params, outer)
            after = changed(params, locality)
        scored = locality.labels != IGNORED
        return l_edit, mean_where(kl_divergence(before, after), scored)

    l_edit, l_loc = jax.tree.map(jnp.mean, jax.vmap(one)(edits, examples))
    total = c_edit * l_edit + c_loc * l_loc
    return total, (Losses(total, l_edit, l_loc), stats)


class StepMetrics(NamedTuple):
    """Of one step: losses in nats (means over its edits), gradient norm before clipping."""

    loss: Float[Array, ""]
    edit_loss: Float[Array, ""]
    locality_loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]


Step = Callable[[TrainState, PyTree, Example], tuple[TrainState, StepMetrics]]


def make_calibrator(
    editor: Editor,
    trunk: nn.Module | None = None,
    place: Placement = Placement(),
) -> Callable[[TrainState, PyTree, Example], TrainState]:
    """`calibrate(state, params, examples) -> state`: statistics only, before the first step.

    The state is donated: do not use the old one again.
    """

    def calibrate(state: TrainState, params: PyTree, examples: Example) -> TrainState:
        examples = after_trunk(trunk, params, split_examples(examples, place.mesh))
        stats = editor.calibrate(state.editor, params, examples)
        return keep_place(state._replace(editor=state.editor._replace(stats=stats)), place)

    return jax.jit(calibrate, donate_argnums=0)


LARGEST_SHARED = 1024
"""MB of a product up to which a GPU's compiler reads its kernel once for all passes that are alike
before any of them is needed, as those of edit and locality pairs are; of itself, it goes to 64."""

Move = Callable[..., PyTree]


def move_if(move: Move, finite: Bool[Array, ""], before: PyTree) -> PyTree:
    """`move(*before)` if finite, else `before`: in the old arrays' memory, if they are donated.

    Two ways, since the CPU's compiler copies the moments where each number is chosen, and the GPU's
    copies all that a branch returns.
    """
    return jax.lax.platform_dependent(
        finite, before, cpu=partial(move_in_branch, move), default=partial(move_by_choice, move)
    )


def move_in_branch(move: Move, finite: Bool[Array, ""], before: PyTree) -> PyTree:
    """One of two branches is run."""
    return jax.lax.cond(finite, move, lambda *same: same, *before)


def move_by_choice(move: Move, finite: Bool[Array, ""], before: PyTree) -> PyTree:
    """Both are there, and each number is chosen."""
    return jax.tree.map(partial(jnp.where, finite), move(*before), before)


def make_step(
    editor: Editor,
    objective: Objective,
    optimiser: optax.GradientTransformation,
    trunk: nn.Module | None = None,
    place: Placement = Placement(),
) -> Step:
    """The whole training step, jitted: `step(state, params, examples) -> (state, metrics)`.

    Args:
      trunk: run once, without gradient, over all inputs of the step; leave out if the examples
        hold its outputs already.

    The state is donated: do not use the old one again.
    """

    def step(
        state: TrainState, params: PyTree, examples: Example
    ) -> tuple[TrainState, StepMetrics]:
        examples = after_trunk_at_once(trunk, params, split_examples(examples, place.mesh))

        def total(phi: PyTree) -> tuple[Array, Any]:
            trial = EditorState(phi, state.editor.stats)
            return edit_then_evaluate(editor, objective, trial, params, examples)

        gradient, (losses, stats) = jax.grad(total, has_aux=True)(state.editor.phi)
        gradient = beside_phi(gradient, state, place)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm)
        before = (state.editor, state.optimiser)

        def move(editor: EditorState, moments: PyTree) -> tuple[EditorState, PyTree]:
            updates, moments = optimiser.update(gradient, moments, editor.phi)
            return EditorState(optax.apply_updates(editor.phi, updates), stats), moments

        sound, moments = move_if(move, finite, before)
        state = TrainState(
            sound,
            moments,
            state.step + 1,
            state.skipped + (~finite).astype(jnp.int32),
            jnp.where(finite & (norm > 0), 0, state.stalled + 1),
        )
        metrics = StepMetrics(losses.total, losses.edit, losses.locality, norm)
        if place.mesh is not None:
            metrics = jax.lax.with_sharding_constraint(metrics, replicated(place.mesh))
        return keep_place(state, place), metrics

    return jax.jit(step, donate_argnums=0, compiler_options=_options(place.mesh))


def _options(mesh: Mesh | None) -> dict[str, Any]:
    """Of the compiler, for the devices of a mesh, or the default ones."""
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return {"xla_gpu_dot_merger_threshold_mb": LARGEST_SHARED} if platform == "gpu" else {}
