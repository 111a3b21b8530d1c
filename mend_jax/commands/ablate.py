"""The paper's ablations (Table 6): its editor, and its editor without each of its parts.

    mend-jax ablate --model runs/t5 --minutes 2 --out DIR

    no_sharing    a network for each matrix          only_u        u is transformed, delta passes
    no_norm       no normalisation                   only_delta    the other way round
    no_identity   Xavier instead of the identity     only_smaller  the smaller of the two

Attention matrices instead of MLP matrices (Table 9) are another --sites. It is the paper's chain
that is ablated, whatever --ridge and --words say. Writes what `mend-jax compare` writes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mend_jax.commands.command import Command, Preset
from mend_jax.commands.compare import CompareConfig, run
from mend_jax.editors.mend import ABLATIONS
from mend_jax.option_types import accepted_by
from mend_jax.runs.methods import ablations, ablations_named
from mend_jax.runs.options import check_config


@dataclass(frozen=True, kw_only=True)
class Ablate(CompareConfig):
    """Options of the ablations."""

    out: Path = Path("runs/ablate")
    editors: Annotated[str, accepted_by(ablations_named)] = ",".join(ABLATIONS)
    """Which rows, by name, with commas."""

SMALL = {
    "steps": 300, "rank": 256, "ridge": 1.0, "calibrate": 48, "swap": True, "decay": "cosine",
    "alpha": 1e-4, "alpha_learning_rate": 1e-4, "learning_rate": 1e-4, "c_edit": 0.6, "near": 1,
    "far": 1, "longest": 32, "dev": 60, "phrasings": 18,
}  # fmt: skip
PRESETS = {
    "small_t5": Preset(
        SMALL,
        "with --model runs/t5, 528 edits; 896 s on two CPU cores, seed 0 (results/ablate_t5)",
    ),
    "small_gpt_neo": Preset(
        SMALL,
        "with --model runs/gpt_neo; 1,053 s on two CPU cores beside other work, seed 0 "
        "(results/ablate_gpt_neo)",
    ),
}


def ablate(config: Ablate) -> None:
    """The paper's chain, and the chain without each of its parts."""
    check_config(config)
    run(config, ablations(config, config.editors))


COMMAND = Command(Ablate, ablate, __doc__, PRESETS)
