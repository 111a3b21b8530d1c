"""Many edits at once (the paper's Table 5): MEND and ENN, trained and scored for each number.

    mend-jax batch_edits --model runs/t5 --minutes 5 --out DIR

Every row is an editor that was trained to make k edits at once, scored on the held-out records in
groups of k; a training step makes --batch edits, or k if that is more. --at-once says how MEND
makes them. Writes what experiments.compare writes.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command
from mend_jax.commands.compare import CompareConfig, run
from mend_jax.runs.methods import many_at_once, side_by_side


@dataclass(frozen=True, kw_only=True)
class BatchEdits(CompareConfig):
    """Options of the runs."""

    out: Path = Path("runs/batch_edits")
    dev: int = 150
    editors: str = "mend,enn"
    """Which editors, by name, with commas."""
    ks: str = "1,5,25,75,125"
    """Numbers of edits at once."""

def batch_edits(config: BatchEdits) -> None:
    """Every method for every number of edits."""
    run(config, many_at_once(side_by_side(config, config.editors, config.own), config.ks))


COMMAND = Command(BatchEdits, batch_edits, __doc__)
