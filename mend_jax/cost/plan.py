"""What a training run will need, before it is run: bytes per device, and FLOPs of a step.

Weights, editor, Adam's moments and gradients are counted exactly, from shapes and shardings. The
rest is an estimate: the real step is lowered and compiled at the real shapes, without allocating
them, and the compiler says how much it would hold beside its arguments.

    activations = editor + (temporaries - gradients - editor) * bytes of an activation / 4 + widened

The step is compiled in float32, because the CPU's compiler would widen every bfloat16 weight into
a temporary of its own. What belongs to the base then shrinks with its dtype; what belongs to the
editor (`editor`: its activations in both directions) does not. Logits and attention weights,
float32 in any case, are halved with the rest: they are few. `widened` is the largest int8 kernel in
the dtype in which it is multiplied.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from mend_jax.cost.workload import (
    Sizes,
    Streaming,
    Workload,
    example_shapes,
    make_workload,
    placed_arguments,
    state_shapes,
    streaming_of,
)
from mend_jax.example import Example
from mend_jax.links import from_config
from mend_jax.models.memory import Dtype, device_bytes
from mend_jax.models.stages import abstract_params
from mend_jax.models.tail import Parts
from mend_jax.objectives import after_trunk
from mend_jax.training.state import Placement, TrainState

CARDS = (16, 24, 40, 80, 141)
"""Memory of common GPUs, in GB (1e9 bytes)."""

USABLE = 0.94
"""Share of a card's memory that a program gets: the driver and the libraries hold the rest."""


class Bytes(NamedTuple):
    """Bytes per device. peak is the sum of the others."""

    weights: int
    editor: int
    optimizer: int
    gradients: int
    activations: int
    peak: int


class Plan(NamedTuple):
    """What a run will need.

    params: of the base, in numbers. flops_step: of one step on the whole batch, over all devices;
    flops_trunk + flops_tail, the tail being all that comes after the trunk, the editor included.
    fits: the `CARDS` on which the peak is within what a program gets. streaming: what comes before
    the first step, if the trunk is not held; its FLOPs are in none of the others then.
    """

    params: int
    editor_params: int
    flops_step: float
    flops_trunk: float
    flops_tail: float
    bytes: Bytes
    fits: tuple[int, ...]
    streaming: Streaming | None = None


def make_plan(
    config: Mapping[str, Any],
    mesh: Mesh,
    batch: int = 10,
    dtype: Dtype = "bfloat16",
    sizes: Sizes = Sizes(),
    shard_editor: bool = False,
    parts: Parts = "all",
) -> Plan:
    """Counts and compiles; takes a minute or two for the largest models, and little memory.

    Args:
      config: a Hugging Face config.json.
      mesh: axes ("data", "model"); its devices only have to exist, they may be virtual.
      batch: edits a step, over all devices. dtype: of the base's weights; activations are bfloat16
        unless it is float32.
      shard_editor: its matrices and their moments over "model" too. parts: as for `load`.

    Raises:
      ValueError: an architecture that is not implemented; a batch that "data" does not divide; no
        tail of this model could be trained alone.
    """
    place = Placement(mesh, shard_editor)
    work = make_workload(config, sizes, place=place, parts=parts)
    placed = placed_arguments(work, batch, "float32", place)
    lowered = work.step.lower(*placed)
    flops_step, flops_trunk = _flops(lowered), 0.0
    if work.trunk is not None:
        through = jax.jit(lambda params, some: after_trunk(work.trunk, params, some))
        flops_trunk = _flops(through.lower(work.params, example_shapes(work, batch)))
    weights = placed_arguments(work, batch, dtype, place).params
    state = state_shapes(work, example_shapes(work, batch))
    gradients = device_bytes(placed.state.editor.phi)
    local = example_shapes(work, batch // mesh.shape["data"])
    of_editor = _editor_temporaries(work, state, local)
    counted = (
        device_bytes(weights),
        device_bytes(placed.state.editor),
        device_bytes(placed.state.optimiser),
        gradients,
        _activations(_temporaries(lowered), gradients, of_editor, weights, dtype),
    )
    used = Bytes(*counted, sum(counted))
    return Plan(
        params=sum(x.size for x in jax.tree.leaves(abstract_params(work.model))),
        editor_params=sum(x.size for x in jax.tree.leaves(state.editor.phi)),
        flops_step=flops_step,
        flops_trunk=flops_trunk,
        flops_tail=flops_step - flops_trunk,
        bytes=used,
        fits=cards_for(used.peak),
        streaming=streaming_of(work, dtype),
    )


def _activations(
    temporaries: int, gradients: int, of_editor: int, weights: PyTree, dtype: Dtype
) -> int:
    """Bytes per device, by the formula above."""
    of_editor = min(of_editor, temporaries)
    share = 1.0 if dtype == "float32" else 0.5
    found = of_editor + (max(temporaries - gradients - of_editor, 0)) * share
    if dtype == "int8":
        kernels = [x for x in jax.tree.leaves(weights) if x.dtype == jnp.int8]
        found += 2 * max(device_bytes(x) for x in kernels)
    return math.ceil(found)


def cards_for(peak: int) -> tuple[int, ...]:
    """The `CARDS` that have room for so many bytes."""
    return tuple(card for card in CARDS if peak <= USABLE * card * 1e9)


def _flops(lowered: Any) -> float:
    """Of the whole program, before it is cut for the devices; no loop hides a block's FLOPs."""
    return float(lowered.cost_analysis()["flops"])


def _temporaries(lowered: Any) -> int:
    """Bytes per device that the compiled program holds beside its arguments and results.

    The buffers are laid out before machine code is made, so that need not be fast code.
    """
    compiled = lowered.compile({"xla_backend_optimization_level": 0})
    return int(compiled.memory_analysis().temp_size_in_bytes)


def _editor_temporaries(work: Workload, state: TrainState, examples: Example) -> int:
    """Bytes of the editor's activations for these examples, there and back."""
    chain = from_config(work.editor.config["options"]["chain"], {})

    def observed(params: PyTree, state: TrainState, examples: Example) -> PyTree:
        tail_inputs = after_trunk(work.trunk, params, examples)
        return work.editor.observe(state.editor, params, tail_inputs)[1]

    factors = jax.eval_shape(observed, work.params, state, examples)  # an edit has their shapes

    def there_and_back(phi: PyTree, stats: PyTree, factors: PyTree, changes: PyTree) -> PyTree:
        each = jax.vmap(chain.apply, (None, None, 0))
        edits, back = jax.vjp(lambda phi: each(phi, stats, factors), phi)
        return edits, back(changes)

    lowered = jax.jit(there_and_back).lower(*state.editor, factors, factors)
    return _temporaries(lowered)
