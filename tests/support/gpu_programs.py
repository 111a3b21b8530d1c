"""Programs of the GPU's compiler for small models, and what must not stand in them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mend_jax.cost.gpu_plan import compile_for_gpu
from mend_jax.cost.kernels import NO_KERNEL
from mend_jax.cost.program_text import HOST, Instruction, Program, parse_program
from mend_jax.cost.small_families import SIZES, SMALL
from mend_jax.cost.target import TargetError, check_compiler, target_mesh, target_of
from mend_jax.cost.workload import make_workload, placed_arguments
from mend_jax.evaluation.teacher_forced import make_scorer
from mend_jax.models.generate import generate
from mend_jax.models.memory import Dtype
from mend_jax.parallel import over_data
from mend_jax.training.state import Placement

BATCH = 6


def reason() -> str:
    """Why nothing can be compiled for a GPU here; empty if it can."""
    try:
        check_compiler()
    except TargetError as error:
        return str(error)
    return ""


needs_compiler = pytest.mark.skipif(bool(reason()), reason=reason())


class Programs(NamedTuple):
    """Of one small model. state: arrays of the training state. kernels, edited: shapes of all
    kernels, and of the edited ones, as a device holds them; whole: numbers of an edited one."""

    step: Program
    scorer: Program
    generation: Program | None
    state: int
    kernels: set[tuple[int, ...]]
    edited: set[tuple[int, ...]]
    whole: set[int]

    def all(self) -> dict[str, Program]:
        """By name."""
        named = {"step": self.step, "scorer": self.scorer, "generation": self.generation}
        return {name: program for name, program in named.items() if program is not None}


def programs(name: str, data: int, model: int, dtype: Dtype = "bfloat16") -> Programs:
    """Compiles step, scorer and generation (a classifier says nothing) for H100s."""
    mesh = target_mesh(target_of("h100"), data, model)
    place = Placement(mesh)
    work = make_workload(SMALL[name], SIZES, jnp.bfloat16, place)
    placed = placed_arguments(work, BATCH, dtype, place)
    scorer: Any = make_scorer(work.editor, work.logits, work.trunk, mesh)
    said = None
    if work.model.kind != "classifier":
        tokens = jax.ShapeDtypeStruct((BATCH, 11), jnp.int32, sharding=over_data(mesh))
        lengths = jax.ShapeDtypeStruct((BATCH,), jnp.int32, sharding=over_data(mesh))
        say = jax.jit(lambda params, *asked: generate(work.model, params, *asked, 3))
        said = compiled(say.lower(placed.params, tokens, lengths))
    found: dict[str, Any] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(placed.params):
        if path[-1].key == "kernel":
            found["/".join(key.key for key in path[:-1])] = x
    return Programs(
        compiled(work.step.lower(*placed)),
        compiled(scorer.lower(placed.state.editor, placed.params, placed.examples)),
        said,
        len(jax.tree.leaves(placed.state)),
        {x.sharding.shard_shape(x.shape) for x in found.values()},
        {found[site].sharding.shard_shape(found[site].shape) for site in work.sites},
        {int(np.prod(found[site].shape)) for site in work.sites},
    )


def compiled(lowered: Any) -> Program:
    """What the compiler makes of it."""
    return parse_program(compile_for_gpu(lowered).as_text())


def run(program: Program) -> list[Instruction]:
    """The instructions that are run, those inside of a kernel apart."""
    fused = {name for one in instructions(program) for name in inside(one)}
    return [
        one
        for name, computation in program.computations.items()
        if name not in fused
        for one in computation.instructions.values()
        if one.operation not in NO_KERNEL
    ]


def inside(one: Instruction) -> tuple[str, ...]:
    """The computations that are part of this kernel."""
    if one.operation in ("while", "conditional", "call", "async-start"):
        return ()
    return one.called("calls", "to_apply")


def instructions(program: Program) -> list[Instruction]:
    """All of them."""
    return [one for part in program.computations.values() for one in part.instructions.values()]


def of_float64(program: Program) -> list[str]:
    """Arrays of double precision."""
    made = ((one.name, buffer) for one in instructions(program) for buffer in one.buffers)
    return [name for name, buffer in made if buffer.dtype in ("f64", "c128")]


def to_the_host(program: Program) -> list[str]:
    """Transfers between device and host."""
    ways = ("infeed", "outfeed", "send", "recv")
    return [
        one.name
        for one in instructions(program)
        if one.operation.removesuffix("-start") in ways
        or any(buffer.space == HOST for buffer in one.buffers)
        or (one.operation == "custom-call" and "callback" in one.rest)
    ]


def widened(program: Program, kernels: set[tuple[int, ...]]) -> list[str]:
    """What is written in float32 and has as many numbers as a kernel."""
    sizes = {int(np.prod(shape)) for shape in kernels}
    return [
        f"{one.name} {one.source}"
        for one in run(program)
        if any(buffer.dtype == "f32" and buffer.size in sizes for buffer in one.buffers)
    ]


def gradients(program: Program, kernels: set[tuple[int, ...]]) -> list[str]:
    """Products of a kernel's shape, turned or not."""
    shapes = {tuple(sorted(shape)) for shape in kernels}
    return [
        f"{one.name} {one.source}"
        for one in instructions(program)
        if one.operation == "dot" or "__cublas" in one.rest
        if tuple(sorted(one.buffers[0].shape[-2:])) in shapes
    ]


def gathered(program: Program, whole: set[int]) -> list[str]:
    """What devices send each other that has as many numbers as a whole kernel when it is there."""
    return [
        f"{one.name} {one.source}"
        for one in run(program)
        if one.operation.startswith("all-gather") and "done" not in one.operation
        if any(buffer.size in whole for buffer in one.buffers)
    ]
