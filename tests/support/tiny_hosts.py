"""One of several processes of a very small training run, or all of it:

    python tests/support/tiny_hosts.py DIR [--address HOST:PORT --processes N --rank I] [--mesh 1x2]
        [--shard-editor] [--resume] [--pause SECONDS]

The first prints the number of every step, and writes all arrays of the run's end to DIR/end.npz.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from tiny_fit import CONFIG, SITES, token_records

import mend_jax as mj
from mend_jax.data.batches import shapes_of
from mend_jax.data.training_batches import Draw, training_batches
from mend_jax.evaluation.teacher_forced import Batching, make_scorer, score
from mend_jax.models import llama
from mend_jax.parallel import fetch, is_first, shard_examples, shard_params
from mend_jax.saved.arrays import named_arrays
from mend_jax.training.loop import Journal, Schedule, Work, fit
from mend_jax.training.stopping import Stopped

SCHEDULE = Schedule(steps=8, log_every=2, evaluate_every=3, checkpoint_every=3)


class Setting:
    """All that `fit` needs, made alike by every process; built once, used by many runs."""

    def __init__(self, data: int = 1, model: int = 1, shard_editor: bool = False) -> None:
        self.mesh = mj.make_mesh(data, model) if data * model > 1 else None
        self.place = mj.Placement(self.mesh, shard_editor)
        base = llama.Llama(CONFIG)
        params = base.init(jax.random.key(0), base.example_inputs())["params"]
        self.params = shard_params(params, llama.PARTITION, self.mesh) if self.mesh else params
        self.records = token_records(7)
        self.shapes = shapes_of(self.records)
        loss, logits = mj.sequence_loss(base), mj.sequence_logits(base)
        self.editor = mj.mend(loss, SITES, rank=4, alpha=1e-2)
        self.optimiser = mj.editor_optimiser(1e-3, 1e-3)
        self.step = mj.make_step(
            self.editor, mj.Objective(loss, logits), self.optimiser, place=self.place
        )
        self.scorer = make_scorer(self.editor, logits, mesh=self.mesh)

    def batches(self, start: int) -> Iterator[mj.Example]:
        for examples in training_batches(self.records, self.shapes, Draw(4), 5, start):
            yield shard_examples(examples, self.mesh) if self.mesh else examples

    def develop(self, state: mj.EditorState) -> dict[str, float]:
        two = self.records[:2]
        scores = score(self.scorer, state, self.params, two, Batching(self.shapes, batch=2))
        return {"loss": float(np.mean(scores.edit_loss))}

    def run(
        self, directory: Path, resume: bool = False, pause: float = 0.0
    ) -> dict[str, np.ndarray]:
        """All arrays at the end of the run, by name."""

        def report(number: int, row: dict[str, float]) -> None:
            print(number, flush=True)
            time.sleep(pause)

        first = next(training_batches(self.records, self.shapes, Draw(4), 5))
        one = jax.tree.map(lambda x: x[0], first)
        key = jax.random.key(1)
        state = mj.init_state(self.editor, self.optimiser, key, self.params, one, self.place)
        work = Work(self.step, self.batches, self.develop)
        done = fit(work, state, self.params, SCHEDULE, Journal(directory, resume, report, print))
        return named_arrays(fetch(done.progress))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--address")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--mesh", default="1x1")
    parser.add_argument("--shard-editor", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    jax.config.update("jax_disable_most_optimizations", True)
    if options.address:
        mj.start_distributed(options.address, options.processes, options.rank)
    data, model = (int(n) for n in options.mesh.split("x"))
    try:
        setting = Setting(data, model, options.shard_editor)
        found = setting.run(options.directory, options.resume, options.pause)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.number)
    except RuntimeError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if is_first():
        np.savez(options.directory / "end.npz", **found)


if __name__ == "__main__":
    main()
