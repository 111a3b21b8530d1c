"""All of a run but editors, bases and records: a directory that is taken, a loop, a result.

It takes a second or so, most of it for checkpoints.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from mend_jax.editors.base import EditorState
from mend_jax.files import replace_whole, write_text
from mend_jax.parallel import fetch
from mend_jax.runs.out import Out, begin, taken
from mend_jax.saved.arrays import named_arrays
from mend_jax.training.loop import Journal, Schedule, Work, fit
from mend_jax.training.state import TrainState
from mend_jax.training.step import StepMetrics

SCHEDULE = Schedule(steps=11, log_every=1, evaluate_every=4, checkpoint_every=3)


@jax.jit
def step(state: TrainState, params: Any, batch: Any) -> tuple[TrainState, StepMetrics]:
    """Descends |phi - batch|^2, with momentum."""
    phi, stats = state.editor
    gradient = phi["w"] - batch
    momentum = 0.9 * state.optimiser["m"] + gradient
    editor = EditorState({"w": phi["w"] - 0.1 * momentum}, {"rows": stats["rows"] + 1})
    loss = jnp.sum(gradient**2)
    made = state._replace(editor=editor, optimiser={"m": momentum}, step=state.step + 1)
    return made, StepMetrics(loss, loss, loss, jnp.sqrt(loss))


def batches(start: int) -> Iterator[np.ndarray]:
    while True:
        yield np.random.default_rng(start).normal(size=(40, 30)).astype(np.float32)
        start += 1


def develop(editor: EditorState) -> dict[str, float]:
    return {"loss": float(np.sum(np.abs(editor.phi["w"])))}


def small_run(directory: Path) -> None:
    """Writes editor.safetensors, results.json and what the loop writes."""
    out = Out(directory, {"steps": SCHEDULE.steps}, True, "results.json")
    with taken(out) as state:
        if state == "finished":
            return
        begin(out)
        zero = jnp.zeros((), jnp.int32)
        start = EditorState({"w": jnp.ones((40, 30))}, {"rows": jnp.zeros(())})
        fresh = TrainState(start, {"m": jnp.zeros((40, 30))}, zero, zero + 0, zero + 0)
        done = fit(Work(step, batches, develop), fresh, None, SCHEDULE, Journal(directory, True))
        arrays = named_arrays(fetch(done.progress))
        replace_whole(directory / "editor.safetensors", lambda draft: save_file(arrays, draft))
        results = {"best_step": int(done.progress.best_step), "rows": len(done.history)}
        write_text(directory / "results.json", json.dumps(results))
