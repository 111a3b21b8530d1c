"""Trains MEND for BART-base on question answering.

    python -m experiments.train_bart_zsre --train FILE --validation FILE
    python -m experiments.pretrain --family bart --out runs/bart
    python -m experiments.train_bart_zsre --model runs/bart

The paper (Table 4): edit success 0.98, accuracy drawdown 0.002. Data: zsRE questions, answered
wrongly on purpose, with rephrasings; locality on other questions (`--locality FILE`: on Natural
Questions). The paper's base was first fine-tuned on zsRE: give such a folder as --model. Hardware:
a GPU of any size, or a CPU.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command, Preset, main
from mend_jax.runs.options import PaperConfig
from mend_jax.runs.run import run


@dataclass(frozen=True, kw_only=True)
class BartZsre(PaperConfig):
    """Options of the run; the defaults are the paper's."""

    out: Path = Path("runs/train_bart_zsre")
    model: str = "facebook/bart-base"


PRESETS = {
    "pronunciations": Preset(
        {
            "rank": 256, "steps": 900, "learning_rate": 3e-5, "alpha": 4e-4,
            "alpha_learning_rate": 6e-5, "decay": "cosine", "c_edit": 0.05, "ridge": 0.05,
            "calibrate": 48, "swap": True, "near": 2, "far": 2, "dev": 200, "max_validation": 20,
            "evaluate_every": 200, "checkpoint_every": 100_000, "patience": 0,
        },
        "with a BART that spells words as sounds and the files of make_pronunciations, 2,321 "
        "edits: edit success 0.902 (0.893 to 0.911), accuracy drawdown 0.019 (0.016 to 0.022) from "
        "1.000; 13 minutes on two CPU cores, seed 0 (results/pronunciations_bart.json)",
    ),
}  # fmt: skip

COMMAND = Command(BartZsre, run, __doc__, PRESETS)

if __name__ == "__main__":
    main(COMMAND)
