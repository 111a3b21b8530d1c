"""Many edits at once (the paper's Table 5): MEND and ENN, trained and scored for each number.

    mend-jax batch_edits --model runs/t5 --minutes 5 --out DIR

Every row is an editor that was trained to make k edits at once, scored on the held-out records in
groups of k; a training step makes --batch edits, or k if that is more. --at-once says how MEND
makes them. Writes what `mend-jax compare` writes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mend_jax.commands.command import Command, Preset
from mend_jax.commands.compare import EditorNames, EditorsConfig, run
from mend_jax.option_types import accepted_by
from mend_jax.runs.methods import contenders, many_at_once, numbers_of
from mend_jax.runs.options import check_config


@dataclass(frozen=True, kw_only=True)
class BatchEdits(EditorsConfig):
    """Options of the runs."""

    out: Path = Path("runs/batch_edits")
    dev: int = 150
    editors: EditorNames = "mend,enn"
    """Which editors, by name, with commas."""
    ks: Annotated[str, accepted_by(numbers_of)] = "1,5,25,75,125"
    """Numbers of edits at once."""

def batch_edits(config: BatchEdits) -> None:
    """Every method for every number of edits."""
    check_config(config)
    run(config, many_at_once(contenders(config, config.editors, config.own), config.ks))


SMALL = {
    "minutes": 2.0, "rank": 256, "ridge": 0.05, "at_once": "solved", "calibrate": 20,
    "swap": True, "decay": "cosine", "alpha": 5e-3, "alpha_learning_rate": 1e-4,
    "learning_rate": 1e-4, "c_edit": 0.6, "near": 1, "far": 1, "longest": 32,
    "phrasings": 18,
}  # fmt: skip
PRESETS = {
    "small_t5": Preset(
        SMALL | {"sites": "decoder/block_(1|2)/mlp/(wi_0|wo)"},
        "with --model runs/t5, MEND with 1, 5, 25, 75, 125 edits at once: edit success 0.924, "
        "0.902, 0.817, 0.630, 0.483, accuracy drawdown 0.014, 0.034, 0.112, 0.215, 0.313; two CPU "
        "cores, seed 0 (results/batch_t5)",
    ),
    "small_gpt_neo": Preset(
        SMALL,
        "with --model runs/gpt_neo, MEND with 1, 5, 25, 75, 125 edits at once: edit success 0.822, "
        "0.783, 0.657, 0.483, 0.408; two CPU cores beside other work, seed 0 "
        "(results/batch_gpt_neo)",
    ),
}

COMMAND = Command(BatchEdits, batch_edits, __doc__, PRESETS)
