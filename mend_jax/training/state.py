"""Everything that a training step changes, and where on the devices it lies."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from mend_jax.editors.base import Editor, EditorState
from mend_jax.example import Example
from mend_jax.parallel import matrix_sharding, replicated


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


class Placement(NamedTuple):
    """Where a training run's arrays lie; by default on one device.

    mesh: the edits of a step are split over its axis "data"; the base's weights stay where `load`
      put them; the state is whole on every device, unless
    shard_editor: phi and Adam's moments are split over "model", too. For an editor that is large
      beside the base: the paper's for T5-XXL takes 3.5 GB with its moments.
    """

    mesh: Mesh | None = None
    shard_editor: bool = False


def state_sharding(state: TrainState, place: Placement) -> TrainState:
    """The sharding of every leaf of a state (or of its shapes) on the placement's mesh."""
    mesh = place.mesh
    assert mesh is not None
    everywhere = jax.tree.map(lambda _: replicated(mesh), state)
    if not place.shard_editor:
        return everywhere
    editor = everywhere.editor._replace(phi=matrix_sharding(state.editor.phi, mesh))
    return everywhere._replace(editor=editor, optimiser=matrix_sharding(state.optimiser, mesh))


def init_state(
    editor: Editor,
    optimiser: optax.GradientTransformation,
    key: PRNGKeyArray,
    params: PyTree,
    example: Example,
    place: Placement = Placement(),
) -> TrainState:
    """A fresh state; `example` is one example (shapes only), without the batch axis.

    On a mesh it is the same as on one device, number for number.
    """

    def fresh(key: PRNGKeyArray, params: PyTree) -> TrainState:
        start = editor.init(key, params, example)
        zero = jnp.zeros((), jnp.int32)
        state = TrainState(start, optimiser.init(start.phi), zero, zero, zero)
        return jax.tree.map(jnp.array, state)  # no two leaves share a buffer: the step donates them

    if place.mesh is None:
        return fresh(key, params)
    where = state_sharding(jax.eval_shape(fresh, key, params), place)
    return jax.jit(fresh, out_shardings=where)(key, params)


def keep_place(state: TrainState, place: Placement) -> TrainState:
    """Inside a jitted function: the state stays where `init_state` put it."""
    if place.mesh is None:
        return state
    return jax.lax.with_sharding_constraint(state, state_sharding(state, place))


def beside_phi(gradient: PyTree, state: TrainState, place: Placement) -> PyTree:
    """Inside a jitted function: the gradient lies where phi does. Else the compiler may split the
    update, and send the moments, too."""
    if place.mesh is None:
        return gradient
    where = state_sharding(state, place).editor.phi
    return jax.lax.with_sharding_constraint(gradient, where)
