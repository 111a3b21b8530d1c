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

from mend_jax.commands.command import Command, main
from mend_jax.runs.options import PaperConfig
from mend_jax.runs.run import run


@dataclass(frozen=True, kw_only=True)
class BartZsre(PaperConfig):
    """Options of the run; the defaults are the paper's."""

    out: Path = Path("runs/train_bart_zsre")
    model: str = "facebook/bart-base"


COMMAND = Command(BartZsre, run, __doc__)

if __name__ == "__main__":
    main(COMMAND)
