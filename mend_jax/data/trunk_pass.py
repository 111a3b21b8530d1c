"""One pass of all texts through the stages of a trunk, one stage after another.

    for each stage:  read its weights;  states of all texts <- stage(states);  drop the weights

The states lie in a file meanwhile, so that memory holds one stage and one batch.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from mend_jax.data.bucketing import overlapped
from mend_jax.data.trunk_cache import Batch
from mend_jax.models.registry import Base
from mend_jax.models.stages import Inputs, traced
from mend_jax.parallel import fetch


class Plan(NamedTuple):
    """What is to be streamed, and where its states go.

    about: what makes them; note: the same in words. states: their file; its index lies beside it.
    width: of a row, with the `kept` states beside its first.
    """

    about: str
    note: dict[str, Any]
    states: Path
    batches: tuple[Batch, ...]
    rows: int
    width: int
    kept: int
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes of the states."""
        return self.rows * self.width * self.dtype.itemsize

    @property
    def told(self) -> str:
        """What it takes, in words."""
        texts = sum(len(batch.texts) for batch in self.batches)
        where = self.states.parent
        size = megabytes(self.size)
        return f"states of {texts:,} texts below the edited layers: {size} in {where}"


class Passed(NamedTuple):
    """How texts went through a trunk: their tokens, the FLOPs of the products with its kernels, and
    the seconds that it took, with all that was read, compiled and written."""

    tokens: int
    flops: float
    seconds: float


def megabytes(size: int) -> str:
    """So many bytes, in words."""
    return f"{size / 1e6:,.1f} MB"


def one_token() -> Inputs:
    """What every trunk takes, at its smallest."""
    return Inputs(jnp.zeros((1, 1), jnp.int32), mask=jnp.ones((1, 1), bool))


def stage_of(trunk: nn.Module, number: int) -> nn.Module:
    """One stage of the trunk alone."""
    nothing: dict[str, Any] = {"keep": ()} if hasattr(trunk, "keep") else {}
    return trunk.clone(start=number, stop=number + 1, **nothing)


def run_stages(
    base: Base,
    trunk: nn.Module,
    plan: Plan,
    file: BinaryIO,
    progress: Callable[[int, int], None],
) -> Passed:
    """Fills the file with the states, stage after stage."""
    programs: dict[str, Any] = {}
    inputs, keep = one_token(), getattr(trunk, "keep", ())
    began, kernels = time.perf_counter(), 0
    for number in range(trunk.stop):
        part = stage_of(trunk, number)
        shapes, inputs = traced(part, inputs)
        params = _read(base, shapes)
        kernels += sum(x.size for path, x in flatten_dict(params).items() if path[-1] == "kernel")
        run = _program(part, params, programs)
        column = 1 + keep.index(number + 1) if number + 1 in keep else 0
        done = number * plan.rows
        for rows in _through(run, plan, file, number == 0, column):
            done += rows
            progress(done, trunk.stop * plan.rows)
        del run, params  # its weights are let go before the next ones are read
    return Passed(plan.rows, 2.0 * kernels * plan.rows, time.perf_counter() - began)


def _read(base: Base, shapes: PyTree) -> PyTree:
    """The parameters of a stage: the base's own, and from the files what it does not hold."""
    held, wanted = flatten_dict(base.params), flatten_dict(shapes)
    layers = {path[:-1] for path in wanted}
    params = {path: x for path, x in held.items() if path[:-1] in layers}  # scales of int8, too
    missing = {path: x for path, x in wanted.items() if path not in held}
    if missing and base.stored is not None:
        params |= flatten_dict(base.stored(unflatten_dict(missing)))
    return unflatten_dict(params)


def _program(part: nn.Module, params: PyTree, programs: dict[str, Any]) -> Callable[..., Any]:
    """`run(x, mask)`: states after the stage. Stages whose programs are alike share one."""
    leaves, tree = jax.tree.flatten(params)
    own: dict[int, Any] = {}

    def stage(leaves: list[Any], x: jax.Array, mask: jax.Array) -> jax.Array:
        carry: Any = part.apply({"params": jax.tree.unflatten(tree, leaves)}, Inputs(x, mask=mask))
        return carry.x

    def run(x: np.ndarray, mask: np.ndarray) -> Any:
        length = x.shape[1]
        if length not in own:
            lowered = jax.jit(stage).lower(leaves, x, mask)
            text = lowered.as_text()
            if text not in programs:
                programs[text] = lowered.compile()
            own[length] = programs[text]
        return own[length](leaves, x, mask)

    return run


def _through(
    run: Callable[..., Any], plan: Plan, file: BinaryIO, first: bool, column: int
) -> Iterator[int]:
    """Takes every batch through a stage, and says of how many rows it was.

    Args:
      first: of all stages; it is given tokens. column: where the states are also kept, if not 0.
    """
    width, row = plan.width // (1 + plan.kept), plan.width * plan.dtype.itemsize

    def started() -> Iterator[tuple[int, np.ndarray, np.ndarray, Any]]:
        at = 0
        for batch in plan.batches:
            x, mask = batch.padded
            inside = mask.copy()
            inside[len(batch.texts) :] = False
            rows = np.zeros((int(inside.sum()), plan.width), plan.dtype)
            if not first:
                file.seek(at * row)
                file.readinto(rows.view(np.uint8).data)  # type: ignore[attr-defined]
                x = np.zeros((*mask.shape, width), plan.dtype)
                x[inside] = rows[:, :width]
            yield at, rows, inside, run(x, mask)
            at += len(rows)

    for at, rows, inside, output in overlapped(started(), ahead=1):
        rows[:, :width] = fetch(output)[inside]
        if column:
            rows[:, column * width : (column + 1) * width] = rows[:, :width]
        file.seek(at * row)
        file.write(rows.view(np.uint8).data)
        yield len(rows)
