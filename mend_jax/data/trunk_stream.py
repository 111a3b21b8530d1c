"""The trunk run out of its files: each stage is read once, run over all texts, and let go.

    for each stage:  read its weights;  states of all texts <- stage(states);  drop the weights

The states lie in a file meanwhile, so that memory holds one stage and one batch. They are kept for
whoever works on these texts next: another run, another editor, an evaluation of some of them.

    cache_folder()/trunk/BY/TEXTS.states   rows as in `trunk_cache`, end to end
                            TEXTS.index    the texts, and a checksum of each one's states
                            made_by.json   what made them, for those who look at them

BY is a checksum of what makes the states (the base's tensors and dimensions, dtypes, stages), TEXTS
of the texts. The index is written last. One that is damaged, or whose states are, counts as none.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from filelock import FileLock
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Int, PyTree

from mend_jax.data.bucketing import overlapped
from mend_jax.data.states_index import read_index, write_index
from mend_jax.data.states_kept import NOTE
from mend_jax.data.trunk_cache import Batch, CacheError, TrunkCache, batches_of
from mend_jax.files import cache_folder, checksum, json_checksum, let_go, write_text
from mend_jax.models.fingerprint import digest
from mend_jax.models.registry import Base
from mend_jax.models.stages import Inputs, traced
from mend_jax.parallel import fetch

FORM = 1
"""Counts up when the files, or what a family's stages compute, become others."""


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
        return f"states of {texts:,} texts below the edited layers: {_mb(self.size)} in {where}"


def plan_stream(base: Base, trunk: nn.Module, sequences: Iterable[Int[np.ndarray, "_"]]) -> Plan:
    """What streaming the trunk over these sequences will take; nothing is read for it.

    Raises:
      ValueError: there are no sequences, or an empty one; the base has no checksums.
    """
    sums = {k: v for k, v in base.checksums.items() if k != "tokenizer"}
    if not sums:
        raise ValueError(f"{base.name}: states are kept under the checksums of a base: it has none")
    rows, batches = batches_of(sequences)
    keep = getattr(trunk, "keep", ())
    x = traced(_stage(trunk, 0), _one_token())[1].x
    about = {
        "form": FORM,
        "base": json_checksum(sums),
        "model": [type(base.config).__name__, digest(base.config)],
        "dtypes": sorted({x.dtype.name for x in jax.tree.leaves(base.params)} | {x.dtype.name}),
        "stages": [trunk.stop, *keep],
        "platform": jax.default_backend(),
    }
    made, width = json_checksum(about), x.shape[-1] * (1 + len(keep))
    every = tuple(batches)
    texts = [tokens for batch in every for tokens in batch.texts]
    name = checksum(f"texts of {[len(tokens) for tokens in texts]}", np.concatenate(texts))
    states = cache_folder() / "trunk" / made / f"{name}.states"
    note = {"name": base.name, **about}
    return Plan(made, note, states, every, rows, width, len(keep), np.dtype(x.dtype))


def stream_trunk(
    base: Base,
    trunk: nn.Module,
    plan: Plan,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrunkCache:
    """The states of the plan's texts: those that are kept, or made by one pass over the trunk.

    Args:
      base: whole, or its tail (`load(..., parts="tail")`).
      trunk: the first part of `split(base.model, sites)`; what it is to `keep` is kept.
      progress: called with (tokens done, tokens in all), counted in each stage.

    Raises:
      CacheError: there is too little room on the disk. WeightsError: the base's files were changed.
    """
    path = plan.states
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # who else wants them waits for them
        if (cache := kept_states(plan)) is not None:
            return cache
        _check_disk(plan)
        draft = path.with_suffix(".draft")
        try:
            with draft.open("w+b") as file:
                _run(base, trunk, plan, file, progress)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        places, at = {}, 0
        for tokens in (tokens for batch in plan.batches for tokens in batch.texts):
            places[tokens.tobytes()] = (at, len(tokens))
            at += len(tokens)
        cache = _mapped(plan, path, places)
        write_text(path.parent / NOTE, json.dumps(plan.note, indent=1) + "\n")
        write_index(path.with_suffix(".index"), places, cache.checksums, plan.about)
    return cache


def kept_states(plan: Plan) -> TrunkCache | None:
    """Kept states that hold those of all of the plan's texts, and are whole; None without any."""
    wanted = {tokens.tobytes() for batch in plan.batches for tokens in batch.texts}
    for path in sorted(plan.states.parent.glob("*.index")):
        places, sums = read_index(path, plan.about)
        if not wanted <= places.keys():
            continue
        try:
            cache = _mapped(plan, path.with_suffix(".states"), places)
        except (OSError, ValueError):
            continue
        if cache.checksums == sums:
            with suppress(OSError):  # another's, that may only be read
                path.touch()  # when it was last of use
            return cache
    return None


def _mapped(plan: Plan, path: Path, places: dict[bytes, tuple[int, int]]) -> TrunkCache:
    """The states in a file; raises ValueError if it has not as many bytes as they."""
    shape = (sum(n for _, n in places.values()), plan.width)
    if path.stat().st_size != shape[0] * shape[1] * plan.dtype.itemsize:
        raise ValueError(f"{path} was cut short")
    rows = np.memmap(path, plan.dtype, "r", 0, shape)
    cache = TrunkCache(rows, places, path, plan.kept)
    let_go(rows)  # all of it was read, for its checksums
    return cache


def _check_disk(plan: Plan) -> None:
    free = shutil.disk_usage(plan.states.parent).free
    if free < plan.size:
        raise CacheError(
            f"{plan.told}, where {_mb(free)} are free: make room there, let MEND_JAX_CACHE name a "
            "folder on another disk, or take fewer records"
        )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _one_token() -> Inputs:
    return Inputs(jnp.zeros((1, 1), jnp.int32), mask=jnp.ones((1, 1), bool))


# --------------------------------------------------------------------------------------- one pass


def _stage(trunk: nn.Module, number: int) -> nn.Module:
    """One stage of the trunk alone."""
    nothing: dict[str, Any] = {"keep": ()} if hasattr(trunk, "keep") else {}
    return trunk.clone(start=number, stop=number + 1, **nothing)


def _run(
    base: Base,
    trunk: nn.Module,
    plan: Plan,
    file: BinaryIO,
    progress: Callable[[int, int], None],
) -> None:
    """Fills the file with the states, stage after stage."""
    programs: dict[str, Any] = {}
    inputs, keep = _one_token(), getattr(trunk, "keep", ())
    for number in range(trunk.stop):
        part = _stage(trunk, number)
        shapes, inputs = traced(part, inputs)
        run = _program(part, _read(base, shapes), programs)
        column = 1 + keep.index(number + 1) if number + 1 in keep else 0
        done = number * plan.rows
        for rows in _through(run, plan, file, number == 0, column):
            done += rows
            progress(done, trunk.stop * plan.rows)
        del run  # its weights are let go before the next ones are read


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
