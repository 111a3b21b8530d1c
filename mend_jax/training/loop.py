"""The loop around the training step: checkpoints, early stop, exact resume, a record of metrics.

A run killed at any moment and resumed ends bit-identical to one that never was: every batch is a
function of (seed, step), and everything else is in the checkpoint. SIGTERM and SIGINT end it at the
next step, with a checkpoint.

With several processes each runs this loop over the same batches; the first one writes the metrics
and talks, all of them write the checkpoints. If one is lost, the others end with an error.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mend_jax.editors.base import EditorState
from mend_jax.example import Example
from mend_jax.files import write_text
from mend_jax.parallel import is_first
from mend_jax.training.checkpoint import CheckpointError, Checkpoints, Kept, Progress, Row
from mend_jax.training.state import TrainState
from mend_jax.training.step import Step, StepMetrics
from mend_jax.training.stopping import Stopped, stop_requests


class TrainingError(RuntimeError):
    """Training cannot go on; says why and what to try."""


class Schedule(NamedTuple):
    """How long, and how often what. All in steps.

    patience: stop after so many steps without a better development loss (0: never).
    stall_limit: stop after so many steps in a row without a usable gradient.
    """

    steps: int
    log_every: int = 10
    evaluate_every: int = 100
    checkpoint_every: int = 100
    patience: int = 0
    stall_limit: int = 20


class Fit(NamedTuple):
    """What a run ended with.

    progress: with the editor of the lowest development loss. history: the rows of metrics.jsonl.
    """

    progress: Progress
    stopped_early: bool
    history: list[Row]


class Work(NamedTuple):
    """What a run does.

    step: from `make_step`. batches(start): yields the examples of steps start, start + 1, ...
    develop: metrics of an editor on the development slice; "loss" decides which is best.
    """

    step: Step
    batches: Callable[[int], Iterator[Example]]
    develop: Callable[[EditorState], dict[str, float]]


class Journal(NamedTuple):
    """Where a run is kept and told.

    directory: gets `checkpoints/` and `metrics.jsonl`. resume: go on from the newest checkpoint
    there, if there is one, else from the start. report: called after each step with its number and,
    when logged, its metrics. say: for messages to the user.
    """

    directory: str | Path
    resume: bool = False
    report: Callable[[int, Row], None] = lambda step, row: None
    say: Callable[[str], None] = print


def fit(
    work: Work, state: TrainState, params: PyTree, schedule: Schedule, journal: Journal
) -> Fit:
    """Trains until the last step, or until development stops getting better.

    Args:
      state: from `init_state`; donated.

    Raises:
      TrainingError: `schedule.stall_limit` steps in a row had no finite, nonzero gradient, or the
        development loss was never finite; or another process of the run was lost.
      CheckpointError: a checkpoint could not be written, or none of those there can be read; or
        there are some, and the run is not to be resumed.
      Stopped: by a signal; the checkpoint of the last step is written.
    """
    if not is_first():
        journal = journal._replace(report=_silent, say=_silent)
    directory = Path(journal.directory)
    # beside the state, on all its devices: a checkpoint of several processes holds nothing else
    worst, nowhere = jnp.full_like(state.step, jnp.inf, jnp.float32), jnp.zeros_like(state.step)
    progress = Progress(state, None, worst, nowhere)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        progress, history = _begun(checkpoints, progress, journal)
        start = int(progress.train.step)
        if _is_stale(progress, start, schedule) and start < schedule.steps:  # it had stopped early
            return Fit(progress, True, history)
        examples = work.batches(start)
        upcoming = next(examples)
        began = time.perf_counter()
        with (
            _opened(directory / "metrics.jsonl") as log,
            _lost_processes(),
            stop_requests() as asked,
        ):
            for number in range(start + 1, schedule.steps + 1):
                train, metrics = work.step(progress.train, params, upcoming)
                upcoming = next(examples)  # made while the step runs
                row = _logged(number, metrics, schedule, began)
                if row or number % schedule.stall_limit == 0:  # seldom: it waits for the step
                    _check_stalled(train, schedule.stall_limit)
                progress, measured = _looked(progress._replace(train=train), number, schedule, work)
                row |= measured
                if row:
                    history.append(row)
                    if log is not None:
                        log.write(json.dumps(row) + "\n")
                        log.flush()
                journal.report(number, row)
                last, stop = number == schedule.steps, _is_stale(progress, number, schedule)
                signalled = asked()
                if number % schedule.checkpoint_every == 0 or last or stop or signalled:
                    jax.block_until_ready(progress)  # what went wrong in the step is said as such
                    checkpoints.save(progress, history)
                if signalled:
                    raise Stopped(signalled, f"at step {number}, whose checkpoint is written")
                if stop and not last:
                    stale = number - int(progress.best_step)
                    journal.say(f"stopped early: no better development loss for {stale} steps")
                    return Fit(progress, True, history)
    return Fit(progress, False, history)


def _begun(checkpoints: Checkpoints, fresh: Progress, journal: Journal) -> Kept:
    """Where the run goes on: from its newest checkpoint, or from the start. The rows up to there
    are written anew."""
    kept = Kept(fresh, [])
    if checkpoints.steps():
        if not journal.resume:
            raise CheckpointError(
                f"{checkpoints.directory} holds the checkpoints of a run: resume it, or train in "
                "another directory"
            )
        kept = checkpoints.restore(fresh, journal.say)
        journal.say(f"resuming from step {int(kept.progress.train.step)}")
    elif journal.resume:
        journal.say(f"no checkpoint in {checkpoints.directory}: starting at step 0")
    lines = (json.dumps(row) + "\n" for row in kept.rows)
    write_text(Path(journal.directory) / "metrics.jsonl", "".join(lines))
    return kept


def _logged(number: int, metrics: StepMetrics, schedule: Schedule, began: float) -> Row:
    """The row of a step that is logged, else nothing."""
    if number % schedule.log_every and number not in (1, schedule.steps):
        return {}
    row: Row = {k: float(v) for k, v in metrics._asdict().items()}
    return {"step": number, **row, "seconds": round(time.perf_counter() - began, 2)}


def _looked(
    progress: Progress, number: int, schedule: Schedule, work: Work
) -> tuple[Progress, Row]:
    """The progress after a look at the development slice, if one is due, and what was seen. One is
    due, too, before a run is stopped for want of a better loss.

    Raises:
      TrainingError: the run ends here, and its development loss was never finite.
    """
    last = number == schedule.steps
    if number % schedule.evaluate_every and not (last or _is_stale(progress, number, schedule)):
        return progress, {}
    measured = work.develop(progress.train.editor)
    progress = _keep_best(progress, measured["loss"], last)
    if (last or _is_stale(progress, number, schedule)) and not progress.best_step:
        raise TrainingError(
            f"stopped at step {number}: the development loss was never finite "
            f"(now {measured['loss']}): lower the learning rate"
        )
    return progress, {"step": number} | {f"dev_{k}": v for k, v in measured.items()}


def _opened(path: Path) -> contextlib.AbstractContextManager[TextIO | None]:
    """The file to append to; of several processes, the first has it."""
    return path.open("a", encoding="utf-8") if is_first() else contextlib.nullcontext()


def _silent(*_: object) -> None:
    """For what the first process says for all."""


@contextlib.contextmanager
def _lost_processes() -> Iterator[None]:
    """What JAX raises in a run of several processes, in words."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise TrainingError(
            "another process of this run was lost, or cannot be reached: resume from the newest "
            f"checkpoint, on one process or several ({str(error).splitlines()[0][:200]})"
        ) from error


def _is_stale(progress: Progress, number: int, schedule: Schedule) -> bool:
    return bool(schedule.patience) and number - int(progress.best_step) >= schedule.patience


def _keep_best(progress: Progress, loss: float, last: bool) -> Progress:
    if not loss < float(progress.best_loss):
        return progress
    editor = progress.train.editor
    if not last:  # the next step is given the memory of this one
        editor = jax.tree.map(jnp.copy, editor)
    return progress._replace(
        best=editor,
        best_loss=jnp.full_like(progress.best_loss, loss),
        best_step=progress.train.step + 0,
    )


def _check_stalled(train: TrainState, limit: int) -> None:
    if int(train.stalled) >= limit:
        raise TrainingError(
            f"stopped at step {int(train.step)}: the last {int(train.stalled)} steps had a "
            f"gradient that was zero or not finite ({int(train.skipped)} not finite in all). The "
            "editor cannot learn like this: lower the learning rate, or check the sites and that "
            "the edit loss depends on them"
        )
