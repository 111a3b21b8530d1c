"""Many edits at once (the paper's Table 5): MEND and ENN, trained and scored for each number.

    mend-jax batch_edits --model runs/t5 --minutes 5 --out DIR

Every row is an editor that was trained to make k edits at once, scored on the held-out records in
groups of k; a training step makes --batch edits, or k if that is more. --at-once says how MEND
makes them. Writes what experiments.compare writes.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command
from mend_jax.commands.compare import run
from mend_jax.runs.methods import MethodOptions, many_at_once


@dataclass(frozen=True, kw_only=True)
class BatchEdits(MethodOptions):
    """Options of the runs."""

    out: Path = Path("runs/batch_edits")
    dev: int = 150
    editors: str = "mend,enn"
    """Which editors, by name, with commas."""
    ks: str = "1,5,25,75,125"
    """Numbers of edits at once."""

COMMAND = Command(
    BatchEdits,
    lambda config: run(config, many_at_once(config.editors, config.ks, config)),
    __doc__,
)
