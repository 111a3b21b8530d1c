"""Compares editing methods on one base and one data set: one budget, the same held-out edits.

    mend-jax compare --model runs/t5 --minutes 2 --out DIR
    mend-jax compare --train FILE --validation FILE --editors mend,ft,none --out DIR

    mend        this package's editor, or the paper's with --ridge 1
    ft          fine-tuning on the edit until it is answered; ft_kl holds training answers meanwhile
    ft_breadth  fine-tuning on all held-out edits at once, and all are scored under that one edit
    enn, ke     the trained editors that the paper compares with
    cache       stored answers for inputs near an edited one; changes no weight
    none        no edit

Writes compare.json, compare.md, compare.png, and each editor to a folder of its own. Without
--train the project's facts are used.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from mend_jax.commands.command import Command
from mend_jax.editors.registry import EDITORS
from mend_jax.files import write_text
from mend_jax.parallel import mesh_of
from mend_jax.reports.figures import success_against_drawdown
from mend_jax.reports.progress import Reporter
from mend_jax.runs.comparison import Row, compare, markdown
from mend_jax.runs.methods import Chosen, side_by_side
from mend_jax.runs.options import ExperimentError, TrainConfig, check_data, check_out, check_ranges
from mend_jax.runs.run import gather
from mend_jax.runs.task import Task, make_task

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

    steps: int = 0
    """Training steps of every editor that is trained; 0: as many as fit in --minutes."""
    minutes: float = 2.0
    """Time to train each editor, unless --steps says how long."""
    own: Annotated[Own, tyro.conf.arg(name="")] = field(default_factory=Own)
    """What single methods leave to choose."""


@dataclass(frozen=True, kw_only=True)
class Compare(CompareConfig):
    """Options of the comparison."""

    out: Path = Path("runs/compare")
    editors: str = "mend,ft,ft_kl,ft_breadth,enn,ke,cache,none"
    """Which editors, with commas: by name, or by import path (package.module:name)."""


def settle(config: CompareConfig, reporter: Reporter) -> tuple[Task, str, bool]:
    """(the task, the data set's name, whether texts are scored by perplexity)."""
    check_ranges(replace(config, steps=max(config.steps, 1)))
    check_data(config)
    if config.resume or config.distributed or config.minutes <= 0 or config.steps < 0:
        raise ExperimentError(
            "a comparison needs --minutes above 0 or --steps above 0, and is neither resumed nor "
            "distributed"
        )
    if config.editor != CompareConfig.editor:
        raise ExperimentError("a comparison takes several: --editors NAME,NAME,...")
    check_out(config)
    mesh = mesh_of(config.mesh)
    base, sites, data, dataset, _ = gather(config, mesh, print)
    task = make_task(config, base, sites, data, mesh, reporter)
    return task, dataset, base.model.kind == "causal"


def run(config: CompareConfig, chosen: Mapping[str, Chosen]) -> list[Row]:
    """Compares, prints the table, draws the figure."""
    began = time.perf_counter()
    with Reporter(config.steps) as reporter:
        task, dataset, causal = settle(config, reporter)
        rows = compare(task, chosen, dataset, config.minutes, reporter)
    drawdown = "perplexity_drawdown" if causal else "drawdown"
    table = markdown(rows, drawdown)
    write_text(config.out / "compare.md", table + "\n")
    done = [row for row in rows if "error" not in row]
    success_against_drawdown(config.out / "compare.png", done, drawdown)
    print(f"\n{table}\n\n{time.perf_counter() - began:.0f} s; written to {config.out}")
    return rows


def compare_editors(config: Compare) -> None:
    """The named editors, side by side."""
    run(config, side_by_side(config, config.editors, config.own))


COMMAND = Command(Compare, compare_editors, __doc__)
