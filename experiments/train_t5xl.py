"""Trains MEND for T5-XL (2.8 billion parameters) on question answering.

    python -m experiments.train_t5xl --train FILE --validation FILE
    python -m experiments.pretrain --family t5 --out runs/t5
    python -m experiments.train_t5xl --model runs/t5

The paper (Table 3): edit success 0.88, accuracy drawdown 0.001. Data: zsRE questions, answered
wrongly on purpose, with rephrasings; locality on other questions. Hardware: see `python -m
experiments.plan --model google/t5-xl-ssm-nq`.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command, main
from mend_jax.runs.options import PaperConfig
from mend_jax.runs.run import run


@dataclass(frozen=True, kw_only=True)
class T5XL(PaperConfig):
    """Options of the run; the defaults are the paper's."""

    out: Path = Path("runs/train_t5xl")
    model: str = "google/t5-xl-ssm-nq"


COMMAND = Command(T5XL, run, __doc__)

if __name__ == "__main__":
    main(COMMAND)
