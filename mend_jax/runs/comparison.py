"""Editing methods side by side: trained under one budget, scored on the same held-out edits.

Each method becomes one row; one that cannot be built or trained is a row with its error, and the
others still run.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mend_jax.editors.base import Editor, EditorState
from mend_jax.evaluation.metrics import PROTOCOLS, summarise
from mend_jax.files import write_text
from mend_jax.objectives import outputs_of
from mend_jax.reports.progress import Reporter
from mend_jax.reports.results import About, make_results
from mend_jax.runs.comparison_table import Row, line_of
from mend_jax.runs.given_scope import for_scope, given_scope, scored_held
from mend_jax.runs.methods import Chosen, editor_of, options_of, sites_for
from mend_jax.runs.options import as_json
from mend_jax.runs.task import Task, batches_of, cut_at
from mend_jax.runs.training import (
    check_together,
    first_held_out,
    learns,
    score_held_out,
    start,
    train,
)
from mend_jax.saved.arrays import check_trained
from mend_jax.saved.building import build_editor
from mend_jax.saved.directory import SavedEditor, save_editor

ROWS = "compare.json"
TRIAL = 4
"""Steps that are made, and thrown away, to learn how many fit in a budget of minutes; the first
compiles."""


def compare(
    task: Task,
    chosen: Mapping[str, Chosen],
    dataset: str,
    minutes: float,
    reporter: Reporter,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """One row for each method; also writes the editors to `config.out`/NAME.

    Args:
      task: if its steps are 0, training goes on for so many steps as fit in `minutes`, by the time
        that the method's first steps take. If it is resumed, rows of compare.json stay, but for
        those with an error; a method without a row begins anew.
      dataset: its name, for the rows.

    Returns:
      Rows as results.json has them, with "train_seconds", "steps", "edit_seconds" (of one edit,
      after the trunk, compiled; the mean of a few), "parameters" and "memory_bytes" (of the
      compiled training step, or of an edit where nothing is trained; the base included); or with
      "error".
    """
    file = task.config.out / ROWS
    before = _rows(file, say) if task.config.resume else []
    rows: list[Row] = []
    for name, one in chosen.items():
        made = before[len(rows)] if len(rows) < len(before) else {}
        if made.get("editor") == one.called and "error" not in made:
            say(f"{name}: has its row already")
            rows.append(made)
            continue
        say(f"{name} ...")
        config = replace(one.config, out=task.config.out / name, resume=False)
        shutil.rmtree(config.out, ignore_errors=True)  # of a comparison that was stopped
        contender = Contender(task._replace(config=config), one, dataset, minutes)
        try:
            row = _row(contender, reporter)
        except Exception as error:  # the other methods still run
            row = {"editor": one.called, "error": f"{type(error).__name__}: {error}"}
        say(line_of(row))
        rows.append(row)
        known = [*rows, *before[len(rows) :]]
        write_text(file, json.dumps(known, indent=1, default=str) + "\n")
    return rows


def _rows(file: Path, say: Callable[[str], None]) -> list[Row]:
    """Those that a comparison has written before it was stopped."""
    if not file.exists():
        return []
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        rows = None
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    say(f"{file} is damaged: every row is made again")
    return []


class Contender(NamedTuple):
    """One row to be: the method, on a task with its options."""

    task: Task
    chosen: Chosen
    dataset: str
    minutes: float


def _row(contender: Contender, reporter: Reporter) -> Row:
    task, chosen = contender.task, contender.chosen
    k, config, scoped = task.config.k, task.config, task.config.scope
    task = cut_at(task, sites_for(chosen, task.base, task.sites))
    if scoped:  # each is made alone, and k are held together
        config = replace(config, k=1)
        task = task._replace(config=config)
    check_together(task, chosen.method)
    began = time.perf_counter()
    task, editor, saved, trains = _trained(task, contender, reporter)
    train_seconds = time.perf_counter() - began
    memory = _step_memory(task, editor) if trains else 0
    if scoped:
        saved = given_scope(task, saved, lambda message: None)
        editor = build_editor(saved.config, task.outputs)
    save_editor(config.out, *saved[:4], as_json(task.config))
    together = chosen.method.together
    k = len(task.data.validation) if together else k
    made = _make(task, editor, saved.state, 1 if scoped else k)
    if scoped and k > 1:
        scores = scored_held(task, editor, saved, k, reporter)
    else:
        edit = made.edit if together else None
        scores = score_held_out(task, editor, saved.state, reporter, edit)
    metrics = summarise(scores, config.seed, 1 if together else config.k)
    protocol = PROTOCOLS[config.protocol]
    about = About(chosen.called, config.model, contender.dataset, len(scores.success), protocol)
    settings = as_json(task.config) | {"k": k}
    results = make_results(about, metrics, time.perf_counter() - began, settings)
    return results | {
        "train_seconds": round(train_seconds, 1),
        "steps": task.config.steps if trains else 0,
        "edit_seconds": made.seconds,
        "parameters": sum(int(np.size(x)) for x in jax.tree.leaves(saved.state.phi)),
        "memory_bytes": memory or made.memory,
    }


class Trained(NamedTuple):
    """An editor over the tail, and as it is saved. trains: it has something to learn."""

    task: Task
    editor: Editor
    saved: SavedEditor
    trains: bool


def _trained(task: Task, contender: Contender, reporter: Reporter) -> Trained:
    """The method's editor, trained as its budget allows."""
    chosen = contender.chosen
    options = options_of(task, chosen)
    editor = editor_of(task, chosen, options, task.outputs)
    if task.config.scope:
        editor = for_scope(task, editor)
    trains = learns(task, editor)
    if trains and not task.config.steps:
        task = _within(task, editor, contender.minutes)
    reporter.restart(task.config.steps)
    state = train(task, editor, reporter, lambda message: None).state
    check_trained(state, str(task.config.out))
    whole = editor_of(task, chosen, options, outputs_of(task.base.model))
    saved = SavedEditor(whole, state, task.base, task.sites, whole.config)
    return Trained(task, editor, saved, trains)


def _within(task: Task, editor: Editor, minutes: float) -> Task:
    """The task with as many steps as fit; a tenth of the time is for looks at the slice."""
    step, state = start(task, editor)
    batches = batches_of(task, 0, task.config.seed)
    seconds = []
    for _ in range(TRIAL):
        examples = next(batches)
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, task.base.params, examples))
        seconds.append(time.perf_counter() - began)
    steps = max(1, int(0.9 * 60 * minutes / float(np.median(seconds[1:]))))
    every = max(1, steps // 4)
    return task._replace(
        config=replace(
            task.config, steps=steps, evaluate_every=every, checkpoint_every=steps
        )
    )


class Made(NamedTuple):
    """The first edit, the seconds that one takes once compiled, and what that needs in bytes."""

    edit: Any
    seconds: float
    memory: int


TIMED = 4
"""Edits that are made for their time: how long fine-tuning takes depends on the edit."""


def _make(task: Task, editor: Editor, state: EditorState, k: int) -> Made:
    """The first held-out records, edited k at once."""
    params = task.base.params
    examples = first_held_out(task, k, TIMED if k == 1 else 1)
    compiled = jax.jit(editor.edit).lower(state, params, examples[0]).compile()
    first = jax.block_until_ready(compiled(state, params, examples[0]))
    began = time.perf_counter()
    for example in examples:
        jax.block_until_ready(compiled(state, params, example))
    seconds = (time.perf_counter() - began) / (len(examples) * k)
    return Made(first, seconds, _bytes(compiled))


def _step_memory(task: Task, editor: Editor) -> int:
    step, state = start(task, editor)
    first = next(batches_of(task, 0, task.config.seed))
    lowered: Any = step
    return _bytes(lowered.lower(state, task.base.params, first).compile())


def _bytes(compiled: Any) -> int:
    """That a compiled program takes, its arguments included."""
    found = compiled.memory_analysis()
    sizes = (found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes)
    return int(sum(sizes) - found.alias_size_in_bytes)
