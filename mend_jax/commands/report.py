"""Tables and figures from results.json and compare.json files, beside the paper's numbers.

    mend-jax report runs/a runs/b/results.json --out DIR

Writes report.md, with one table for each protocol (numbers under different protocols never share a
column), and its figures: scores with their intervals, curves over the number of edits made at once
(results of one editor with several --k) and over sequences (results of --sequential); and of edits
with a scope, what is found against where they fire.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mend_jax.commands.command import Command
from mend_jax.evaluation.metrics import METRICS
from mend_jax.files import write_text
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, OutFolder
from mend_jax.reports.figures import found_against_fired, over_edits, success_and_locality
from mend_jax.reports.tables import Results, by_protocol, data_of, name_of, read_results, report

LINES = ("edit_success", "locality_agreement", "locality_agreement_own", "drawdown")


@dataclass(frozen=True)
class Report:
    """Options of a report."""

    results: Annotated[tuple[Input, ...], tyro.conf.Positional]
    """Files results.json or compare.json, or directories that hold one."""
    out: OutFolder
    """Directory for report.md and its figures."""


def write_report(config: Report) -> None:
    """Reads, draws, writes, prints the page."""
    check_options(config)
    if not config.results:
        raise ValueError("no results given: name results.json or compare.json files")
    results = [one for path in config.results for one in read_results(path)]
    config.out.mkdir(parents=True, exist_ok=True)
    figures: list[tuple[str, str]] = []
    for number, (protocol, group) in enumerate(by_protocol(results).items()):
        file = f"scores_{number}.png"
        names = [f"{name_of(one)}, {data_of(one)}" for one in group]
        success_and_locality(config.out / file, names, group)
        figures.append((f"Scores, {protocol}", file))
        for sizes in at_once(group):
            file = f"at_once_{len(figures)}.png"
            draw_at_once(config.out / file, sizes)
            how = sizes[-1].get("config", {}).get("at_once") or ""
            about = f"{sizes[0]['editor']} on {sizes[0]['model']}, {how}, {data_of(sizes[0])}"
            figures.append((f"Edits made at once, {about}, {protocol}", file))
    for one in results:
        if "roc" in one:
            file = f"roc_{len(figures)}.png"
            found_against_fired(config.out / file, one["roc"])
            about = f"{number_of(one)} edits held, {name_of(one)}, {data_of(one)}"
            figures.append((f"What a scope finds, and where it fires: {about}", file))
        if "curve" in one:
            file = f"sequence_{len(figures)}.png"
            draw_sequence(config.out / file, one["curve"])
            figures.append((f"Edits one after another, {name_of(one)}, {data_of(one)}", file))
    page = report(results, figures)
    write_text(config.out / "report.md", page)
    print(page)


def at_once(group: Sequence[Results]) -> list[list[Results]]:
    """Results of one editor, on the same base and data, that differ in k, in its order."""
    found: dict[tuple[str, ...], dict[int, Results]] = {}
    for one in group:
        if not one.get("config", {}).get("sequential"):
            options = one.get("config", {})
            about = (*(one[k] for k in ("editor", "model", "dataset")), options.get("editor"))
            key = tuple(map(str, (*about, options.get("at_once"))))
            found.setdefault(key, {})[number_of(one)] = one
    return [[sizes[k] for k in sorted(sizes)] for sizes in found.values() if len(sizes) > 1]


def draw_at_once(path: Path, sizes: Sequence[Results]) -> None:
    """Edit success, locality agreement and drawdown over k."""
    lines = {
        METRICS[name].title: [one["metrics"][name]["value"] for one in sizes]
        for name in LINES
        if all(name in one["metrics"] for one in sizes)
    }
    over_edits(path, "edits made at once", [number_of(one) for one in sizes], lines)


def number_of(one: Results) -> int:
    """Edits that were made, or held, at once."""
    options = one.get("config", {})
    return max(options.get("k", 1), options.get("hold", 0))


def draw_sequence(path: Path, curve: Sequence[dict[str, float]]) -> None:
    """Success of the newest edit and of all so far, locality agreement, and the norm."""
    names = {
        "newest": "newest",
        "so_far": "edit success",
        "locality_agreement": "locality agreement",
        "norm": "norm",
    }
    lines = {
        title: [point[name] for point in curve]
        for name, title in names.items()
        if all(point[name] is not None for point in curve)
    }
    over_edits(path, "edits made so far", [int(point["edits"]) for point in curve], lines)


COMMAND = Command(Report, write_report, __doc__)
