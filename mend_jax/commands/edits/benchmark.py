"""Times a store of many edits: writing them, opening it, one more, one less.

    mend-jax edits benchmark --json results/edit_store_cpu.json

The edits are random, of the sizes that an editor of the model with the default sites and scope
makes; making one is not part of it.
"""

import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mend_jax.commands.command import Command
from mend_jax.cost.workload import make_workload
from mend_jax.editors.scoped import ScopedEdit
from mend_jax.files import write_text
from mend_jax.models.published import PublishedModel, config_of
from mend_jax.option_checks import check_options
from mend_jax.option_types import Batch, OutFile, Seed, Some
from mend_jax.peak import peak_bytes, reset_peak
from mend_jax.scopes.network import two_keys
from mend_jax.store.ledger import Ledger
from mend_jax.store.making import meeting_of
from mend_jax.store.origin import Origin, told
from mend_jax.store.rows import NewEdit, Words
from mend_jax.store.slots import slot_of
from mend_jax.store.standing import catch_up, stand

AT_ONCE = 100
"""Edits that are written in one transaction."""


@dataclass(frozen=True)
class StoreBenchmark:
    """Options of the benchmark."""

    model: PublishedModel = "smollm2-135m"
    """A built-in model, or a folder."""
    edits: Some = 10_000
    """In the store."""
    rows: Batch = 4
    """Of an edit at each site."""
    rounds: Some = 20
    """One edit is added and removed so often; the median and the slowest are told."""
    seed: Seed = 0
    """Of the edits."""
    json: OutFile | None = None
    """Write the results to this file."""


def run(config: StoreBenchmark, folder: Path) -> dict[str, Any]:
    """Times everything, with the store in `folder`; returns what is written to the file."""
    work = make_workload(config_of(config.model))
    scope = two_keys((1, 2))
    slot = slot_of(work.params, work.sites, {"scope": scope.config, "rows": config.rows})
    meets = meeting_of(scope, scope.init(jax.random.key(0), 1))
    origin = Origin(told({"name": config.model, "fingerprint": {}}), told({"editor": "random"}))
    edits = random_edits(slot, config.seed)
    path = folder / "edits.db"
    with Ledger(path) as ledger:
        began = clock()
        for first in range(0, config.edits, AT_ONCE):
            n = min(AT_ONCE, config.edits - first)
            ledger.add(list(itertools.islice(edits, n)), origin)
        written = clock() - began
    reset_peak()
    began = clock()
    with Ledger(path) as ledger:
        standing = jax.block_until_ready(stand(ledger, slot))
        opened, peak = clock() - began, peak_bytes()
        times = []
        for edit in itertools.islice(edits, config.rounds + 1):
            began = clock()
            meets(edit.kept.keys, standing.slots.kept.keys, standing.slots.used)
            (number,) = ledger.add([edit], origin)
            standing = jax.block_until_ready(catch_up(ledger, slot, standing))
            added = clock()
            ledger.remove([number])
            standing = jax.block_until_ready(catch_up(ledger, slot, standing))
            times.append((added - began, clock() - added))
    more, less = np.moveaxis(np.array(times[1:]), 0, 1)  # the first has compiled
    seconds = {"make_and_write_all": written, "open": opened}
    for name, found in (("add_one", more), ("remove_one", less)):
        seconds |= {name: np.median(found, axis=0), f"{name}_slowest": np.max(found, axis=0)}
    return {
        "model": config.model, "edits": config.edits, "sites": len(work.sites),
        "device": jax.devices()[0].device_kind, "cores": os.cpu_count(),
        "load": os.getloadavg()[0], "file_bytes": path.stat().st_size, "peak_bytes": peak,
        "seconds": {name: float(x[0]) for name, x in seconds.items()},
        "cpu_seconds": {name: float(x[1]) for name, x in seconds.items()},
    }  # fmt: skip


def clock() -> np.ndarray:
    """Seconds of the wall's clock, and those that the processors have spent on this process."""
    return np.array([time.perf_counter(), time.process_time()])


def random_edits(slot: ScopedEdit, seed: int) -> Iterator[NewEdit]:
    """Edits that fill a slot, without end."""
    rng = np.random.default_rng(seed)

    def draw(x: Any) -> np.ndarray:
        if x.dtype == np.int32:
            return rng.integers(0, 1000, 3, np.int32)
        return rng.standard_normal(x.shape, np.float32).astype(x.dtype)

    for i in itertools.count():
        words = Words(f"The capital of country {i} is", f"city {i}", f"country {i}")
        yield NewEdit(words, jax.tree.map(draw, slot))


def benchmark(config: StoreBenchmark) -> None:
    """Times, prints, writes."""
    check_options(config)
    with tempfile.TemporaryDirectory() as folder:
        found = run(config, Path(folder))
    print(f"{found['edits']:,} edits of {found['sites']} sites of {found['model']}, "
          f"{found['file_bytes'] / 1e6:,.0f} MB; {found['device']}, {found['cores']} cores, load "
          f"{found['load']:.1f}, peak {found['peak_bytes'] / 1e9:.1f} GB")  # fmt: skip
    for name, seconds in found["seconds"].items():
        spent = found["cpu_seconds"][name]
        print(f"  {name.replace('_', ' '):<20} {seconds:9.4f} s, of processors {spent:9.4f} s")
    if config.json:
        write_text(config.json, json.dumps(found, indent=1) + "\n")


COMMAND = Command(StoreBenchmark, benchmark, __doc__)
