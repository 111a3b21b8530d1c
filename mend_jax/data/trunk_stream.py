"""The states of a trunk that is run out of its files (`trunk_pass`), kept on disk.

They are kept for whoever works on these texts next: another run, another editor, an evaluation of
some of them.

    cache_folder()/trunk/BY/TEXTS.states   rows as in `trunk_cache`, end to end
                            TEXTS.index    the texts, and a checksum of each one's states
                            made_by.json   what made them, for those who look at them

BY is a checksum of what makes the states (the base's tensors and dimensions, dtypes, stages), TEXTS
of the texts. The index is written last. One that is damaged, or whose states are, counts as none.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from filelock import FileLock
from jaxtyping import Int

from mend_jax.data.states_index import read_index, write_index
from mend_jax.data.states_kept import NOTE
from mend_jax.data.trunk_cache import CacheError, TrunkCache, batches_of
from mend_jax.data.trunk_pass import Passed, Plan, megabytes, one_token, run_stages, stage_of
from mend_jax.files import cache_folder, checksum, json_checksum, let_go, write_text
from mend_jax.models.fingerprint import digest
from mend_jax.models.registry import Base
from mend_jax.models.stages import traced

FORM = 1
"""Counts up when the files, or what a family's stages compute, become others."""


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
    x = traced(stage_of(trunk, 0), one_token())[1].x
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
    passed: Callable[[Passed], None] = lambda how: None,
) -> TrunkCache:
    """The states of the plan's texts: those that are kept, or made by one pass over the trunk.

    Args:
      base: whole, or its tail (`load(..., parts="tail")`).
      trunk: the first part of `split(base.model, sites)`; what it is to `keep` is kept.
      progress: called with (tokens done, tokens in all), counted in each stage.
      passed: called after the pass, if there was one.

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
                passed(run_stages(base, trunk, plan, file, progress))
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
            f"{plan.told}, where {megabytes(free)} are free: make room there, let MEND_JAX_CACHE "
            "name a folder on another disk, or take fewer records"
        )
