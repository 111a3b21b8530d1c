"""Editing methods side by side: trained under one budget, scored on the same held-out edits.

Each method becomes one row; one that cannot be built or trained is a row with its error, and the
others still run.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mend_jax.data.batches import edit_examples, grouped, shapes_of
from mend_jax.editors.base import Editor, EditorState
from mend_jax.evaluation.metrics import PROTOCOLS, summarise
from mend_jax.evaluation.teacher_forced import kept
from mend_jax.example import Example
from mend_jax.files import write_text
from mend_jax.objectives import Outputs, after_trunk, outputs_of
from mend_jax.parallel import fetch
from mend_jax.reports.progress import Reporter
from mend_jax.reports.results import make_results
from mend_jax.runs.options import as_json
from mend_jax.runs.splits import check_conflicts
from mend_jax.runs.task import (
    Setting,
    batches_of,
    calibrated,
    example_of,
    score_with,
    start,
    train,
)
from mend_jax.saved.directory import check_trained, save_editor

Row = dict[str, Any]
TRIAL = 4
"""Steps that are made, and thrown away, to learn how many fit in a budget of minutes; the first
compiles."""


class Method(NamedTuple):
    """How an editing method is set up.

    build(setting, outputs): the editor, over the outputs of the tail of the setting's base, or of
      all of it.
    changes: options that it is trained with in place of the run's own.
    together: all held-out edits are made at once, as one edit.
    called: the editor's name in its row, if it is not the method's.
    """

    build: Callable[[Setting, Outputs], Editor]
    changes: Mapping[str, Any] = {}
    together: bool = False
    called: str = ""


def compare(
    setting: Setting,
    methods: Mapping[str, Method],
    dataset: str,
    minutes: float,
    reporter: Reporter,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """One row for each method; also writes the editors to `config.out`/NAME.

    Args:
      setting: if `setting.config.steps` is 0, training goes on for so many steps as fit in
        `minutes`, by the time that the method's first steps take.
      dataset: its name, for the rows.

    Returns:
      Rows as results.json has them, with "train_seconds", "steps", "edit_seconds" (of one edit,
      after the trunk, compiled), "parameters" and "memory_bytes" (of the compiled training step, or
      of an edit where nothing is trained; the base included); or with "error".
    """
    rows = []
    for name, method in methods.items():
        say(f"{name} ...")
        try:
            row = _row(setting, name, method, dataset, minutes, reporter)
        except Exception as error:  # the other methods still run
            row = {"editor": method.called or name, "error": f"{type(error).__name__}: {error}"}
        say(_told(row))
        rows.append(row)
        write_text(
            setting.config.out / "compare.json", json.dumps(rows, indent=1, default=str) + "\n"
        )
    return rows


def _row(
    setting: Setting,
    name: str,
    method: Method,
    dataset: str,
    minutes: float,
    reporter: Reporter,
) -> Row:
    out = setting.config.out / name
    config = dataclasses.replace(setting.config, out=out, **method.changes)
    setting = setting._replace(config=config)
    base, data = setting.base, setting.data
    if not config.allow_conflicts:
        if config.k > 1:
            parts = (*grouped(data.dev, config.k), *grouped(data.validation, config.k))
            check_conflicts([data.train, *parts])
        if method.together:
            check_conflicts([data.validation])
    editor = method.build(setting, setting.outputs)
    began = time.perf_counter()
    learns = _learns(setting, editor)
    if learns:
        if not config.steps:
            setting = _within(setting, editor, minutes)
        reporter.restart(setting.config.steps)
        fitted = train(setting, editor, reporter, lambda message: None)
        state = fetch(fitted.progress.best)
    else:
        state = fetch(calibrated(setting, editor, start(setting, editor)[1], reporter).editor)
    train_seconds = time.perf_counter() - began
    check_trained(state, str(out))
    options = as_json(setting.config)
    whole = method.build(setting, outputs_of(base.model))
    save_editor(out, whole, state, base, setting.sites, options)
    k = len(data.validation) if method.together else config.k
    made = _make(setting, editor, state, k)
    memory = _step_memory(setting, editor) if learns else made.memory
    scored: tuple[Editor, Any] = editor, state
    if method.together:
        scored = kept(editor), EditorState(state, made.edit)
    scores = score_with(setting, scored[0])(scored[1], data.validation, progress=reporter.scored)
    metrics = summarise(scores, config.seed, 1 if method.together else config.k)
    results = make_results(
        method.called or name, config.model, dataset, PROTOCOLS[config.protocol],
        len(scores.success), metrics, time.perf_counter() - began, options | {"k": k},
    )  # fmt: skip
    return results | {
        "train_seconds": round(train_seconds, 1),
        "steps": setting.config.steps if learns else 0,
        "edit_seconds": made.seconds / k,
        "parameters": sum(int(np.size(x)) for x in jax.tree.leaves(state.phi)),
        "memory_bytes": memory,
    }


def _learns(setting: Setting, editor: Editor) -> bool:
    shapes = jax.eval_shape(
        lambda p: editor.init(jax.random.key(0), p, example_of(setting)), setting.base.params
    )
    return bool(jax.tree.leaves(shapes.phi))


def _within(setting: Setting, editor: Editor, minutes: float) -> Setting:
    """The setting with as many steps as fit; a tenth of the time is for looks at the slice."""
    step, state = start(setting, editor)
    batches = batches_of(setting, 0, setting.config.seed)
    seconds = []
    for _ in range(TRIAL):
        examples = next(batches)
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, setting.base.params, examples))
        seconds.append(time.perf_counter() - began)
    steps = max(1, int(0.9 * 60 * minutes / float(np.median(seconds[1:]))))
    every = max(1, steps // 4)
    return setting._replace(
        config=dataclasses.replace(
            setting.config, steps=steps, evaluate_every=every, checkpoint_every=steps
        )
    )


class Made(NamedTuple):
    """An edit, the seconds that it took to make once compiled, and what that needs in bytes."""

    edit: Any
    seconds: float
    memory: int


def _make(setting: Setting, editor: Editor, state: EditorState, k: int) -> Made:
    """The first k held-out records, edited at once."""
    chosen, params = setting.data.validation[:k], setting.base.params
    made = edit_examples([[r.edit for r in chosen]], shapes_of(chosen), setting.cache)
    ready = after_trunk(setting.trunk, params, jax.device_put(made))
    example: Example = jax.tree.map(lambda x: x[0], ready)
    compiled = jax.jit(editor.edit).lower(state, params, example).compile()
    seconds = []
    for _ in range(4 if k == 1 else 1):
        began = time.perf_counter()
        edit = jax.block_until_ready(compiled(state, params, example))
        seconds.append(time.perf_counter() - began)
    return Made(edit, float(np.median(seconds)), _bytes(compiled))


def _step_memory(setting: Setting, editor: Editor) -> int:
    step, state = start(setting, editor)
    first = next(batches_of(setting, 0, setting.config.seed))
    lowered: Any = step
    return _bytes(lowered.lower(state, setting.base.params, first).compile())


def _bytes(compiled: Any) -> int:
    """That a compiled program takes, its arguments included."""
    found = compiled.memory_analysis()
    sizes = (found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes)
    return int(sum(sizes) - found.alias_size_in_bytes)


def _told(row: Row) -> str:
    """One line about a row."""
    if "error" in row:
        return f"{row['editor']}: not done: {row['error']}"
    shown = {k: f"{row['metrics'][k]['value']:.3f}" for k in SHOWN if k in row["metrics"]}
    return f"{row['editor']}: {shown}, {row['steps']} steps, {row['train_seconds']:.0f} s"


SHOWN = ("edit_success", "reliability", "generality", "locality_agreement")


def markdown(rows: list[Row], drawdown: str = "drawdown") -> str:
    """The rows as one table; scores with their 95 % intervals.

    Args:
      drawdown: the metric that stands for it, "drawdown" (accuracy) or "perplexity_drawdown".
    """
    head = [
        "editor", "edits at once", *(x.replace("_", " ") for x in (*SHOWN, drawdown)),
        "steps", "seconds to train", "seconds per edit", "editor parameters", "memory (GB)",
    ]  # fmt: skip
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["editor"], row["error"].replace("|", "/"), *[""] * (len(head) - 2)])
            continue
        found = [row["metrics"].get(k) for k in (*SHOWN, drawdown)]
        scores = [
            f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" if m else "-" for m in found
        ]
        lines.append(
            [
                row["editor"], str(row["config"]["k"]), *scores, str(row["steps"]),
                f"{row['train_seconds']:.0f}", f"{row['edit_seconds']:.4f}",
                f"{row['parameters']:,}", f"{row['memory_bytes'] / 1e9:.2f}",
            ]
        )  # fmt: skip
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)
    )
