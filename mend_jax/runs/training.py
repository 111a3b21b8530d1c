"""An editor calibrated, trained and scored on a task, whatever method it is."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from mend_jax.data.batches import Shapes, edit_examples, shapes_of
from mend_jax.data.token_records import TokenRecord, check_enough, grouped
from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.method import Method
from mend_jax.evaluation.metrics import summarise
from mend_jax.evaluation.scores import Scores
from mend_jax.evaluation.teacher_forced import Batching, kept, make_scorer, score
from mend_jax.example import Example
from mend_jax.objectives import after_trunk
from mend_jax.parallel import fetch
from mend_jax.reports.progress import Reporter
from mend_jax.runs.option_groups import LoopOptions
from mend_jax.runs.splits import check_conflicts
from mend_jax.runs.task import Task, batches_of, example_of
from mend_jax.training.checkpoint import Row, has_checkpoint
from mend_jax.training.loop import Journal, Schedule, Work, fit
from mend_jax.training.optimiser import editor_optimiser
from mend_jax.training.state import Placement, TrainState, init_state
from mend_jax.training.step import Objective, Step, make_calibrator, make_step

CALIBRATED = 4
"""Phrasings of a record that are compared with each other before training."""


def start(task: Task, editor: Editor) -> tuple[Step, TrainState]:
    """The training step of an editor over the tail, and its fresh state."""
    config, outputs, place = task.config, task.outputs, placement_of(task)
    optimiser = editor_optimiser(
        schedule_of(config, config.learning_rate), schedule_of(config, config.alpha_learning_rate)
    )
    objective = Objective(None, outputs.logits, config.c_edit)
    step = make_step(editor, objective, optimiser, task.trunk, place)
    key, params = jax.random.key(config.seed), task.base.params
    return step, init_state(editor, optimiser, key, params, example_of(task), place)


def placement_of(task: Task) -> Placement:
    """Where the arrays of its training lie."""
    return Placement(task.mesh, task.config.shard_editor)


def calibrated(task: Task, editor: Editor, state: TrainState, reporter: Reporter) -> TrainState:
    """The state with the gradients of `--calibrate` batches counted into its statistics."""
    config = task.config
    calibrate = make_calibrator(editor, task.trunk, placement_of(task))
    seen = batches_of(task, 0, config.seed + 1, outer=CALIBRATED)
    for number in range(config.calibrate):
        state = calibrate(state, task.base.params, next(seen))
        reporter.calibrated(number + 1, config.calibrate)
    return state


def learns(task: Task, editor: Editor) -> bool:
    """Whether the editor has anything to train."""
    shapes = jax.eval_shape(
        lambda p: editor.init(jax.random.key(0), p, example_of(task)), task.base.params
    )
    return bool(jax.tree.leaves(shapes.phi))


def shapes_of_edit(task: Task, editor: Editor) -> Any:
    """An edit of the editor, abstract."""

    def made(params: Any, example: Example) -> Any:
        state = editor.init(jax.random.key(0), params, example)
        return editor.edit(state, params, example)

    return jax.eval_shape(made, task.base.params, example_of(task))


class Trained(NamedTuple):
    """The best state of an editor, on the host. told, history: what results.json says of its
    training, and the rows of metrics.jsonl; empty if there was nothing to train."""

    state: EditorState
    told: dict[str, Any]
    history: list[Row]


def train(
    task: Task, editor: Editor, reporter: Reporter, say: Callable[[str], None]
) -> Trained:
    """Calibrates and trains an editor over the tail, as the task's options say."""
    config, params = task.config, task.base.params
    step, state = start(task, editor)
    goes_on = config.resume and has_checkpoint(config.out / "checkpoints")
    if not goes_on:
        state = calibrated(task, editor, state, reporter)
    if not learns(task, editor):
        return Trained(fetch(state.editor), {}, [])
    schedule = Schedule(
        config.steps,
        config.log_every,
        config.evaluate_every,
        config.checkpoint_every,
        config.patience,
    )
    work = Work(step, lambda start: batches_of(task, start, config.seed), developer(task, editor))
    journal = Journal(config.out, config.resume, reporter.step, say)
    progress, stopped_early, history = fit(work, state, params, schedule, journal)
    told = {
        "skipped_steps": int(progress.train.skipped),
        "best_step": int(progress.best_step),
        "stopped_early": stopped_early,
    }
    return Trained(fetch(progress.best), told, history)


def developer(task: Task, editor: Editor) -> Callable[[EditorState], dict[str, float]]:
    """Metrics on the development slice; "loss" is the training loss there."""
    config, data = task.config, task.data
    shapes = shapes_of([*data.train, *data.dev], config.swap)
    scored = score_with(task, editor)

    def develop(state: EditorState) -> dict[str, float]:
        scores = scored(state, data.dev or data.train[:1], shapes)
        found = {k: v.value for k, v in summarise(scores).items()}
        edit_loss = float(np.mean(scores.edit_loss))
        drawn = found.get("locality_kl", 0.0) if config.near or config.far else 0.0
        total = config.c_edit * edit_loss + drawn
        shown = ("reliability", "generality", "locality_agreement", "locality_kl")
        rest = {k: found[k] for k in shown if k in found}
        return {"loss": total, "edit_loss": edit_loss} | rest

    return develop


def score_with(task: Task, editor: Editor) -> Callable[..., Scores]:
    """`scored(state, records, shapes=..., progress=...)`: under the task's protocol."""
    config = task.config
    scorer = make_scorer(editor, task.outputs.logits, task.trunk, task.mesh, config.protocol)

    def scored(
        state: EditorState,
        records: Sequence[TokenRecord],
        shapes: Shapes | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Scores:
        batching = Batching(shapes, task.cache, task.side_by_side, config.k)
        return score(scorer, state, task.base.params, records, batching, progress)

    return scored


def check_together(task: Task, method: Method) -> None:
    """Raises ExperimentError if edits that will be made at once contradict each other."""
    config, data = task.config, task.data
    if config.allow_conflicts:
        return
    if config.k > 1:
        parts = (*grouped(data.dev, config.k), *grouped(data.validation, config.k))
        check_conflicts([data.train, *parts])
    if method.together:
        check_conflicts([data.validation])


def first_held_out(task: Task, k: int, groups: int = 1) -> list[Example]:
    """The first groups of k held-out records, each to be edited at once.

    Raises:
      ValueError: there are fewer than k.
    """
    check_enough(task.data.validation, k)
    chosen = grouped(task.data.validation, k)[:groups]
    shapes = shapes_of([record for group in chosen for record in group])
    made = edit_examples([[r.edit for r in group] for group in chosen], shapes, task.cache)
    ready = after_trunk(task.trunk, task.base.params, jax.device_put(made))
    return [jax.tree.map(lambda x, i=i: x[i], ready) for i in range(len(chosen))]


def score_held_out(
    task: Task, editor: Editor, state: EditorState, reporter: Reporter, edit: Any = None
) -> Scores:
    """Of the held-out records; with `edit`, all of them under this one."""
    if edit is not None:
        editor, state = kept(editor), EditorState(state, edit)
    return score_with(task, editor)(state, task.data.validation, progress=reporter.scored)


def schedule_of(config: LoopOptions, peak: float) -> optax.ScalarOrSchedule:
    """Constant; or up over the first 20 steps at most, then down along a cosine to a twentieth."""
    if config.decay == "none":
        return peak
    warm_up = min(20, max(config.steps // 10, 1))
    steps = max(config.steps, warm_up + 1)
    return optax.warmup_cosine_decay_schedule(peak / 20, peak, warm_up, steps, peak / 20)
