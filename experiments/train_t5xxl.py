"""Trains MEND for T5-XXL (11 billion parameters), the paper's flagship, on question answering.

    python -m experiments.train_t5xxl --train FILE --validation FILE
    python -m experiments.pretrain --family t5 --out runs/t5
    python -m experiments.train_t5xxl --model runs/t5 --dtype float32

The paper (Table 3): edit success 0.89, accuracy drawdown below 0.001. Data: zsRE questions,
answered wrongly on purpose, with rephrasings; locality on other questions. Hardware: `python -m
experiments.plan --model google/t5-xxl-ssm-nq` says what it needs. The second pair of commands
runs the same code on a small T5 that is trained from nothing, in minutes on a CPU.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command, main
from mend_jax.models.memory import Dtype
from mend_jax.runs.options import PaperConfig
from mend_jax.runs.run import run


@dataclass(frozen=True, kw_only=True)
class T5XXL(PaperConfig):
    """Options of the run; the defaults are the paper's."""

    out: Path = Path("runs/train_t5xxl")
    model: str = "google/t5-xxl-ssm-nq"
    dtype: Dtype = "bfloat16"


COMMAND = Command(T5XXL, run, __doc__)

if __name__ == "__main__":
    main(COMMAND)
