"""A training step from shapes alone: for counting what a run will need, and for timing it.

The setting is the one in which the original was measured: one edit, one outer and one locality pair
per example, all of one length, the last `answers` tokens labelled; the editor is the paper's MEND
at the family's default sites. Nothing here reads a file or allocates an array.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from mend_jax.editors.base import Editor
from mend_jax.editors.mend import mend
from mend_jax.example import Example, Pair
from mend_jax.models.family import Family
from mend_jax.models.memory import Dtype, device_bytes, placed_shapes, stored_shapes
from mend_jax.models.registry import family_of
from mend_jax.models.stages import Inputs, abstract_params, run_trunk, sites_of, split, traced
from mend_jax.models.tail import Parts, shapes_of_tail
from mend_jax.objectives import LogitsFn, LossFn, sequence_logits, sequence_loss
from mend_jax.parallel import over_data, params_sharding
from mend_jax.training.optimiser import editor_optimiser
from mend_jax.training.state import Placement, TrainState, init_state, state_sharding
from mend_jax.training.step import Objective, make_step


class Workload(NamedTuple):
    """What a training step is made of.

    model, trunk, tail: the base, and its parts before and from the first edited site on.
    streamed: the trunk, in place of `trunk`, if a run has read it before its first step and holds
      the tail alone; examples are what it puts out.
    loss, logits: over the tail. params: shapes of the base's weights that are held, in float32.
    step: of `make_step`. vocabulary: number of tokens. length, answers: tokens of a sequence, and
    labelled ones.
    """

    family: Family
    model: Any
    trunk: nn.Module | None
    streamed: nn.Module | None
    tail: nn.Module
    sites: tuple[str, ...]
    editor: Editor
    loss: LossFn
    logits: LogitsFn
    optimiser: optax.GradientTransformation
    step: Any
    params: PyTree
    vocabulary: int
    length: int
    answers: int


class Sizes(NamedTuple):
    """Tokens of each sequence, and labelled ones; and the rank of the editor."""

    length: int = 32
    answers: int = 10
    rank: int = 1920


def make_workload(
    config: Mapping[str, Any],
    sizes: Sizes = Sizes(),
    dtype: Any = jnp.float32,
    place: Placement = Placement(),
    parts: Parts = "all",
) -> Workload:
    """The step for a base with this config.json.

    Args:
      dtype: of the base's activations. place: as for `make_step`. parts: as for `load`.

    Raises:
      ValueError: an architecture that is not implemented; more answers than tokens; a model that
        answers nothing that could be edited, or has no tail of its own.
    """
    length, answers, rank = sizes
    family = family_of(config)
    if not 0 < answers < length:
        raise ValueError(f"{answers} labelled tokens of {length}: at least 1, and not the first")
    dimensions = family.dimensions(config, ())
    model = family.model(dimensions, dtype=dtype)
    if model.kind not in ("causal", "seq2seq", "classifier"):
        raise ValueError(f"a {model.kind!r} model gives no answers to edit")
    sites = sites_of(model, family.default_sites(dimensions))
    trunk, tail = split(model, sites)
    params, streamed = abstract_params(model), None
    if parts == "tail":
        params, trunk, streamed = shapes_of_tail(model, sites, "this model"), None, trunk
    loss, logits = sequence_loss(tail), sequence_logits(tail)
    editor = mend(loss, sites, rank=rank)
    optimiser = editor_optimiser()
    step = make_step(editor, Objective(None, logits), optimiser, trunk, place)
    return Workload(
        family, model, trunk, streamed, tail, sites, editor, loss, logits, optimiser, step,
        params, dimensions.vocab_size, length, answers,
    )  # fmt: skip


def example_shapes(work: Workload, batch: int) -> Example:
    """Shapes of a batch of examples, as the model takes them; leading axes [batch, 1]."""

    def ints(n: int) -> Any:
        return jax.ShapeDtypeStruct((batch, 1, n), jnp.int32)

    mask: Any = jax.ShapeDtypeStruct((batch, 1, work.length), jnp.bool_)
    kind = work.model.kind
    answers = work.answers
    if kind == "causal":
        inputs = Inputs(ints(work.length), read=ints(answers))
    elif kind == "seq2seq":
        inputs = Inputs(ints(work.length), mask=mask, target=ints(answers))
    else:  # one label a text
        inputs, answers = Inputs(ints(work.length), mask=mask), 1
    if work.streamed is not None:
        through = partial(run_trunk, work.streamed)
        inputs = jax.eval_shape(through, abstract_params(work.model), inputs)
    pair = Pair(inputs, ints(answers))
    return Example(pair, pair, pair)


class Streaming(NamedTuple):
    """What a run does once, before its first step, if it does not hold the trunk: bytes of weights
    that it reads; FLOPs, and bytes of states on disk, for each token of its texts."""

    bytes_read: int
    flops_token: float
    states_token: int


def streaming_of(work: Workload, dtype: Dtype) -> Streaming | None:
    """Of a workload whose trunk is streamed, from weights of a dtype; whatever the workload's own
    is, states are float32 only if the weights are."""
    trunk: Any = work.streamed
    if trunk is None:
        return None
    tokens: Any = jax.ShapeDtypeStruct((1, work.length), jnp.int32)
    text = Inputs(tokens, target=work.model.example_inputs().target)
    read, carry = traced(trunk, text)
    lowered: Any = jax.jit(lambda params, x: trunk.apply({"params": params}, x)).lower(read, text)
    return Streaming(
        device_bytes(stored_shapes(read, dtype)),
        lowered.cost_analysis()["flops"] / work.length,
        carry.x.shape[-1] * (4 if dtype == "float32" else 2),
    )


def state_shapes(work: Workload, examples: Example) -> TrainState:
    """Shapes of the training state."""

    def fresh(params: PyTree, examples: Example) -> TrainState:
        carry = examples
        if work.trunk is not None:
            inputs = run_trunk(work.trunk, params, examples.edit.inputs)
            carry = examples._replace(edit=examples.edit._replace(inputs=inputs))
        one = jax.tree.map(lambda x: x[0], carry)
        return init_state(work.editor, work.optimiser, jax.random.key(0), params, one)

    return jax.eval_shape(fresh, work.params, examples)


class Arguments(NamedTuple):
    """What a step is called with: shapes, each with where it lies on the mesh."""

    state: TrainState
    params: PyTree
    examples: Example


def placed_arguments(work: Workload, batch: int, dtype: Dtype, place: Placement) -> Arguments:
    """The arguments of a step of so many edits, over all devices of the placement's mesh.

    Args:
      dtype: in which the base is stored.

    Raises:
      ValueError: the edits do not divide over the mesh's axis "data".
    """
    mesh = place.mesh
    assert mesh is not None
    if batch % mesh.shape["data"]:
        raise ValueError(f"{batch} edits do not divide over {mesh.shape['data']} parts of the mesh")
    examples = example_shapes(work, batch)
    state, stored = state_shapes(work, examples), stored_shapes(work.params, dtype)
    return Arguments(
        placed_shapes(state, state_sharding(state, place)),
        placed_shapes(stored, params_sharding(stored, work.family.partition, mesh)),
        placed_shapes(examples, jax.tree.map(lambda _: over_data(mesh), examples)),
    )
