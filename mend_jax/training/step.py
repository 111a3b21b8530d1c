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
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mend_jax.editors.base import Editor, EditorState
from mend_jax.example import Example
from mend_jax.objectives import (
    IGNORED,
    LogitsFn,
    LossFn,
    after_trunk,
    kl_divergence,
    mean_where,
)
from mend_jax.parallel import matrix_sharding, replicated, split_examples


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


class Losses(NamedTuple):
    """Means over a batch of edits, in nats."""

    total: Float[Array, ""]
    edit: Float[Array, ""]
    locality: Float[Array, ""]


def edit_then_evaluate(
    editor: Editor,
    state: EditorState,
    params: PyTree,
    examples: Example,
    loss: LossFn,
    logits: LogitsFn,
    c_edit: float = 0.1,
    c_loc: float = 1.0,
) -> tuple[Float[Array, ""], tuple[Losses, Any]]:
    """The editor's training loss on a batch of independent edits, and its new statistics.

    Edits are made one per example and evaluated side by side, vmapped over shared weights.

    Args:
      examples: leading axis = edits.
      loss: scores the outer pair after the edit. logits: compared before and after on locality.

    Returns:
      total, (losses, stats).
    """
    stats, edits = editor.observe(state, params, examples)

    def one(edit: Any, example: Example) -> tuple[Array, Array]:
        l_edit = editor.apply(state, loss, edit)(params, example.outer)
        before = jax.lax.stop_gradient(logits(params, example.locality))
        after = editor.apply(state, logits, edit)(params, example.locality)
        scored = example.locality.labels != IGNORED
        return l_edit, mean_where(kl_divergence(before, after), scored)

    l_edit, l_loc = jax.tree.map(jnp.mean, jax.vmap(one)(edits, examples))
    total = c_edit * l_edit + c_loc * l_loc
    return total, (Losses(total, l_edit, l_loc), stats)


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
        _clip_by_global_norm(clip),
        optax.multi_transform(
            {"phi": optax.adam(learning_rate), "alpha": optax.adam(alpha_learning_rate)},
            lambda phi: jax.tree_util.tree_map_with_path(label, phi),
        ),
    )


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """optax's, but by one factor: a product fuses into Adam, optax's quotient is written out."""

    def update(updates: PyTree, state: Any, params: Any = None) -> tuple[PyTree, Any]:
        del params
        factor = jnp.minimum(limit / optax.tree.norm(updates), 1.0)
        return jax.tree.map(lambda g: g * factor, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def state_sharding(state: TrainState, mesh: Mesh, shard_editor: bool = False) -> TrainState:
    """Where a state (or its shapes) lies: whole on every device, or phi and Adam's moments split.

    Args:
      shard_editor: split their matrices over "model". For an editor that is large beside the base:
        the paper's for T5-XXL takes 3.5 GB with its moments.
    """
    everywhere = jax.tree.map(lambda _: replicated(mesh), state)
    if not shard_editor:
        return everywhere
    editor = everywhere.editor._replace(phi=matrix_sharding(state.editor.phi, mesh))
    return everywhere._replace(editor=editor, optimiser=matrix_sharding(state.optimiser, mesh))


def init_state(
    editor: Editor,
    optimiser: optax.GradientTransformation,
    key: PRNGKeyArray,
    params: PyTree,
    example: Example,
    mesh: Mesh | None = None,
    shard_editor: bool = False,
) -> TrainState:
    """A fresh state; `example` is one example (shapes only), without the batch axis.

    With a mesh it is made where `state_sharding` says, and is the same as without, number for
    number.
    """

    def fresh(key: PRNGKeyArray, params: PyTree) -> TrainState:
        start = editor.init(key, params, example)
        zero = jnp.zeros((), jnp.int32)
        state = TrainState(start, optimiser.init(start.phi), zero, zero, zero)
        return jax.tree.map(jnp.array, state)  # no two leaves share a buffer: the step donates them

    if mesh is None:
        return fresh(key, params)
    where = state_sharding(jax.eval_shape(fresh, key, params), mesh, shard_editor)
    return jax.jit(fresh, out_shardings=where)(key, params)


def make_calibrator(
    editor: Editor,
    trunk: nn.Module | None = None,
    mesh: Mesh | None = None,
    shard_editor: bool = False,
) -> Callable[[TrainState, PyTree, Example], TrainState]:
    """`calibrate(state, params, examples) -> state`: statistics only, before the first step.

    The state is donated: do not use the old one again. Mesh: see `make_step`.
    """

    def calibrate(state: TrainState, params: PyTree, examples: Example) -> TrainState:
        examples = after_trunk(trunk, params, split_examples(examples, mesh))
        stats = editor.calibrate(state.editor, params, examples)
        return _keep_place(
            state._replace(editor=state.editor._replace(stats=stats)), mesh, shard_editor
        )

    return jax.jit(calibrate, donate_argnums=0)


def make_step(
    editor: Editor,
    loss: LossFn,
    logits: LogitsFn,
    optimiser: optax.GradientTransformation,
    c_edit: float = 0.1,
    c_loc: float = 1.0,
    trunk: nn.Module | None = None,
    mesh: Mesh | None = None,
    shard_editor: bool = False,
) -> Step:
    """The whole training step, jitted: `step(state, params, examples) -> (state, metrics)`.

    Args:
      editor, loss, logits: over the same model, or over the tail of a split model.
      c_edit, c_loc: weights of the outer loss and of the locality KL (paper: 0.1 and 1).
      trunk: run once, without gradient, over all inputs of the step; leave out if the examples
        hold its outputs already.
      mesh: split the edits over "data"; the base's weights stay where they are (see `load`), the
        state where `state_sharding(state, mesh, shard_editor)` puts it. None: one device.

    The state is donated: do not use the old one again.
    """

    def step(
        state: TrainState, params: PyTree, examples: Example
    ) -> tuple[TrainState, StepMetrics]:
        examples = after_trunk(trunk, params, split_examples(examples, mesh))

        def objective(phi: PyTree) -> tuple[Array, Any]:
            trial = EditorState(phi, state.editor.stats)
            return edit_then_evaluate(
                editor, trial, params, examples, loss, logits, c_edit, c_loc
            )

        gradient, (losses, stats) = jax.grad(objective, has_aux=True)(state.editor.phi)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm)
        before = (state.editor, state.optimiser)

        def move(editor: EditorState, moments: PyTree) -> tuple[EditorState, PyTree]:
            updates, moments = optimiser.update(gradient, moments, editor.phi)
            return EditorState(optax.apply_updates(editor.phi, updates), stats), moments

        # A branch moves phi and the moments in their own memory. Were each number chosen by
        # jnp.where instead, the compiler would copy both moments first.
        sound, moments = jax.lax.cond(finite, move, lambda *same: same, *before)
        state = TrainState(
            sound,
            moments,
            state.step + 1,
            state.skipped + ~finite,
            jnp.where(finite & (norm > 0), 0, state.stalled + 1),
        )
        metrics = StepMetrics(losses.total, losses.edit, losses.locality, norm)
        if mesh is not None:
            metrics = jax.lax.with_sharding_constraint(metrics, replicated(mesh))
        return _keep_place(state, mesh, shard_editor), metrics

    return jax.jit(step, donate_argnums=0)


def _keep_place(state: TrainState, mesh: Mesh | None, shard_editor: bool) -> TrainState:
    if mesh is None:
        return state
    return jax.lax.with_sharding_constraint(state, state_sharding(state, mesh, shard_editor))
