"""A very small training run over `fit`, in this process or as a child that can be killed:

    python tests/support/tiny_fit.py DIR [--resume] [--pause SECONDS] [--full-after STEP]

prints the number of every step, and at the end writes all arrays of the run to DIR/end.npz.
"""

import argparse
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mend_jax as mj
from mend_jax.data.batches import shapes_of
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import Record
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.training_batches import Draw, training_batches
from mend_jax.evaluation.metrics import summarise
from mend_jax.evaluation.teacher_forced import Batching, make_scorer, score
from mend_jax.models.llama import Llama, LlamaConfig
from mend_jax.saved.arrays import named_arrays
from mend_jax.training.checkpoint import Progress
from mend_jax.training.loop import Fit, Journal, Schedule, Work, fit

SITES = "layers_0/mlp/down_proj"
SCHEDULE = Schedule(steps=12, log_every=2, evaluate_every=3, checkpoint_every=4)
CONFIG = LlamaConfig(
    vocab_size=31,
    hidden_size=12,
    intermediate_size=20,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=6,
)


def token_records(n: int) -> list[TokenRecord]:
    rng = np.random.default_rng(0)

    def pair() -> Tokens:
        whole = rng.integers(CONFIG.vocab_size, size=6).astype(np.int32)
        return Tokens(whole[:-1], np.array([3, 4], np.int32), whole[4:])

    return [
        TokenRecord(pair(), (pair(),), (pair(), pair()), ("near", "far"), Record("p", "t"))
        for _ in range(n)
    ]


class Setting:
    """All that `fit` needs but the directory; built once, used by many runs."""

    def __init__(self) -> None:
        model = Llama(CONFIG)
        self.params = model.init(jax.random.key(0), model.example_inputs())["params"]
        self.records = token_records(7)
        self.shapes = shapes_of(self.records)
        loss, logits = mj.sequence_loss(model), mj.sequence_logits(model)
        self.editor = mj.mend(loss, SITES, rank=4, alpha=1e-2)
        self.optimiser = mj.editor_optimiser(1e-2, 1e-2)
        objective = mj.Objective(loss, logits)
        self.step = mj.make_step(self.editor, objective, self.optimiser)
        idle = objective._replace(c_edit=0.0, c_loc=0.0)
        self.idle_step = mj.make_step(self.editor, idle, self.optimiser)
        self.scorer = make_scorer(self.editor, logits)

    def state(self) -> mj.TrainState:
        one = jax.tree.map(lambda x: x[0], next(self.batches(0)))
        return mj.init_state(self.editor, self.optimiser, jax.random.key(1), self.params, one)

    def batches(self, start: int) -> Iterator[mj.Example]:
        return training_batches(self.records, self.shapes, Draw(3), 5, start)

    def develop(self, state: mj.EditorState) -> dict[str, float]:
        scores = score(
            self.scorer, state, self.params, self.records[:2], Batching(self.shapes, batch=2)
        )
        kl = summarise(scores)["locality_kl"].value
        return {"loss": float(np.mean(scores.edit_loss)) + kl, "locality_kl": kl}

    def fit(self, directory: Path, schedule: Schedule = SCHEDULE, **changes: Any) -> Fit:
        """A run; `changes` are of its `Work` or `Journal`, or other `params`, or a `state`."""
        said, params = changes.pop("said", []), changes.pop("params", self.params)
        state = changes.pop("state", None) or self.state()
        work, journal = Work(self.step, self.batches, self.develop), Journal(directory)
        of_work = {k: changes.pop(k) for k in list(changes) if k in work._fields}
        journal = journal._replace(**{"say": said.append, **changes})
        return fit(work._replace(**of_work), state, params, schedule, journal)


def all_arrays(progress: Progress) -> dict[str, np.ndarray]:
    """Everything a run ends with, by name."""
    return named_arrays(progress)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--full-after", type=int, default=0)
    options = parser.parse_args()
    jax.config.update("jax_disable_most_optimizations", True)

    def report(number: int, row: dict[str, float]) -> None:
        print(number, flush=True)
        time.sleep(options.pause)
        if number == options.full_after:  # from here on, no file can be written
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    setting = Setting()
    schedule = SCHEDULE
    if options.full_after:  # checkpoints are what is written next
        schedule = SCHEDULE._replace(log_every=100, evaluate_every=100)
    try:
        done = setting.fit(
            options.directory, schedule, resume=options.resume, report=report, say=print
        )
    except RuntimeError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    np.savez(options.directory / "end.npz", **all_arrays(done.progress))


if __name__ == "__main__":
    main()
