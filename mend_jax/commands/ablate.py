"""The paper's ablations (Table 6): its editor, and its editor without each of its parts.

    mend-jax ablate --model runs/t5 --minutes 2 --out DIR

    no_sharing    a network for each matrix          only_u        u is transformed, delta passes
    no_norm       no normalisation                   only_delta    the other way round
    no_identity   Xavier instead of the identity     only_smaller  the smaller of the two

Attention matrices instead of MLP matrices (Table 9) are another --sites. It is the paper's chain
that is ablated, whatever --ridge and --words say. Writes what experiments.compare writes.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command
from mend_jax.commands.compare import CompareConfig, run
from mend_jax.editors.mend import ABLATIONS
from mend_jax.runs.methods import ablations


@dataclass(frozen=True, kw_only=True)
class Ablate(CompareConfig):
    """Options of the ablations."""

    out: Path = Path("runs/ablate")
    editors: str = ",".join(ABLATIONS)
    """Which rows, by name, with commas."""

COMMAND = Command(Ablate, lambda config: run(config, ablations(config, config.editors)), __doc__)
