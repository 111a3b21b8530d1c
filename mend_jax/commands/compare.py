"""Compares editing methods on one base and one data set: one budget, the same held-out edits.

    mend-jax compare --model runs/t5 --minutes 2 --out DIR
    mend-jax compare --train FILE --validation FILE --editors mend,ft,none --out DIR

    mend        this package's editor, or the paper's with --ridge 1
    ft          fine-tuning on the edit until it is answered; ft_kl holds training answers meanwhile
    ft_breadth  fine-tuning on all held-out edits at once, and all are scored under that one edit
    enn, ke     the trained editors that the paper compares with
    cache       stored answers for inputs near an edited one; changes no weight
    grace       a codebook beside one layer: outputs for inputs near an edited one
    in_context  the edit's text before every question; changes no weight
    none        no edit

With --scope --scope-of DIR all are trained for a scope, given that of the editor in DIR, and scored
while --k of their edits are held together: those whose edits are rows, which are mend, ft and ke.

Writes compare.json, compare.md, compare.png, and each editor to a folder of its own; with --resume,
rows that are done stay. Without --train the project's facts are used.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from mend_jax.commands.command import Command, Preset
from mend_jax.editors.registry import EDITORS
from mend_jax.files import write_text
from mend_jax.option_types import Minutes, accepted_by, between
from mend_jax.parallel import mesh_of
from mend_jax.reports.figures import success_against_drawdown
from mend_jax.reports.progress import Reporter
from mend_jax.runs.comparison import compare
from mend_jax.runs.comparison_table import Row, markdown
from mend_jax.runs.forecast import told_of_pass
from mend_jax.runs.methods import Chosen, contenders, editors_named
from mend_jax.runs.options import ExperimentError, TrainConfig, check_config
from mend_jax.runs.out import State, begin, out_of, taken
from mend_jax.runs.run import gather
from mend_jax.runs.splits import check_data
from mend_jax.runs.task import Task, make_task

EditorNames = Annotated[str, accepted_by(editors_named)]

Own: Any = make_dataclass(
    "Own",
    [
        (name, method.options, field(default_factory=method.options))
        for name, method in EDITORS.items()
        if fields(method.options) and not issubclass(TrainConfig, method.options)
    ],
    frozen=True,
    kw_only=True,
)
"""The options of each method that are not a training run's: `--NAME.option`."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig(TrainConfig):
    """Options of all comparisons; those of a training run are MEND's."""

    steps: Annotated[int, between(0, 100_000_000)] = 0
    """Training steps of every editor that is trained; 0: as many as fit in --minutes."""
    minutes: Minutes = 2.0
    """Time to train each editor, unless --steps says how long."""

    holds_together: ClassVar[bool] = True
    on_development: ClassVar[bool] = False
    """Whether the records that are set apart from training are scored, not those held out."""


@dataclass(frozen=True, kw_only=True)
class EditorsConfig(CompareConfig):
    """Options of a comparison of editors."""

    own: Own = field(default_factory=Own)
    """What single methods leave to choose."""


@dataclass(frozen=True, kw_only=True)
class Compare(EditorsConfig):
    """Options of the comparison."""

    out: Path = Path("runs/compare")
    editors: EditorNames = ",".join(EDITORS)
    """Which editors, with commas: by name, or by import path (package.module:name)."""


FIGURE = "compare.png"
"""Written last."""


def check(config: CompareConfig) -> None:
    """Raises OptionError or ExperimentError for options that no comparison takes."""
    check_config(config)
    check_data(config)
    if config.distributed:
        raise ExperimentError("a comparison is not distributed")
    if config.scope and config.scope_of is None:
        raise ExperimentError("a comparison gives all its editors one scope: --scope-of DIR")
    if config.editor != CompareConfig.editor:
        raise ExperimentError("a comparison takes several: --editors NAME,NAME,...")


def settle(config: CompareConfig, state: State, reporter: Reporter) -> tuple[Task, str, bool]:
    """(the task, the data set's name, whether texts are scored by perplexity)."""
    mesh = mesh_of(config.mesh)
    base, sites, data, dataset, _ = gather(config, mesh, print)
    if config.on_development:
        if not data.dev:
            raise ExperimentError(f"--dev {config.dev}: no records are set apart to be scored")
        data = data._replace(validation=data.dev)
        dataset = f"{dataset}; here on records set apart from training"
    if state == "free":
        begin(out_of(config, FIGURE))
    task = make_task(config, base, sites, data, mesh, reporter)
    if task.streamed:
        print(told_of_pass(task.streamed))
    return task, dataset, base.model.kind == "causal"


def run(config: CompareConfig, chosen: Mapping[str, Chosen]) -> list[Row] | None:
    """Compares, prints the table, draws the figure; None if that is done already."""
    check(config)
    with taken(out_of(config, FIGURE)) as state:
        return None if state == "finished" else _made(config, chosen, state)


def _made(config: CompareConfig, chosen: Mapping[str, Chosen], state: State) -> list[Row]:
    """The rows, in a directory that is free or holds some of them."""
    began = time.perf_counter()
    with Reporter(config.steps) as reporter:
        task, dataset, causal = settle(config, state, reporter)
        rows = compare(task, chosen, dataset, config.minutes, reporter)
    drawdown = "perplexity_drawdown" if causal else "drawdown"
    table = markdown(rows, drawdown)
    write_text(config.out / "compare.md", table + "\n")
    done = [row for row in rows if "error" not in row]
    success_against_drawdown(config.out / FIGURE, done, drawdown)
    print(f"\n{table}\n\n{time.perf_counter() - began:.0f} s; written to {config.out}")
    return rows


def compare_editors(config: Compare) -> None:
    """The named editors, side by side."""
    check_config(config)
    run(config, contenders(config, config.editors, config.own))


def _own(**rates: float) -> Any:
    """Methods' own options with other learning rates."""
    return Own(**{name: EDITORS[name].options(learning_rate=r) for name, r in rates.items()})


PRESETS = {
    "small_t5": Preset(
        {
            "minutes": 2.0, "rank": 256, "ridge": 0.05, "calibrate": 48, "swap": True,
            "decay": "cosine", "alpha": 6e-4, "alpha_learning_rate": 6e-5, "learning_rate": 4e-5,
            "words": True, "c_edit": 0.6, "near": 1, "far": 1, "longest": 32, "dev": 150,
            "phrasings": 18, "own": _own(ft=3e-4, ft_kl=3e-4),
        },
        "with --model runs/t5, 528 edits: MEND 0.877 / 0.014 (edit success / accuracy drawdown), "
        "FT 0.851 / 0.006, ENN 0.519 / 0.013, KE 0.427 / 0.028; 938 s on two CPU cores, seed 0 "
        "(results/compare_t5)",
    ),
    "minilm": Preset(
        {
            "minutes": 1.5, "rank": 256, "ridge": 0.05, "calibrate": 48, "swap": True,
            "decay": "cosine", "alpha": 6e-4, "alpha_learning_rate": 6e-5, "learning_rate": 2e-5,
            "c_edit": 0.3, "near": 0, "far": 4, "longest": 64, "dev": 100, "max_validation": 300,
            "own": _own(ft=3e-5, ft_kl=3e-5, ft_breadth=3e-5, enn=1e-4, ke=1e-3),
        },
        "with --model runs/minilm_fever and FEVER's claims, 300 edits; 954 s on two CPU cores, "
        "seed 0 (results/compare_fever)",
    ),
    "counterfact": Preset(
        {
            "model": "smollm2-135m", "minutes": 1.5, "max_train": 1500, "max_validation": 200,
            "allow_conflicts": True, "rank": 256, "ridge": 0.05, "calibrate": 48,
            "decay": "cosine", "alpha": 6e-4, "alpha_learning_rate": 6e-5, "learning_rate": 2e-5,
            "c_edit": 0.3, "near": 1, "far": 0, "longest": 32, "longest_answer": 3, "dev": 60,
            "own": _own(ft=1e-4, ft_kl=1e-4, ft_breadth=1e-4, enn=1e-5, ke=1e-3),
        },
        "with CounterFact's files, 200 edits; 1,094 s on two CPU cores, seed 0 "
        "(results/compare_counterfact)",
    ),
}  # fmt: skip

COMMAND = Command(Compare, compare_editors, __doc__, PRESETS)
