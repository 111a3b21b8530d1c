"""Trains MEND for GPT-J (6 billion parameters) on text generation.

    python -m experiments.train_gptj --train FILE --validation FILE
    python -m experiments.pretrain --family gptj --out runs/gptj
    python -m experiments.train_gptj --model runs/gptj --dtype float32

The paper (Table 3): edit success 0.88, perplexity drawdown 0.031. Data: continuations of Wikitext
passages, as records; the second pair of commands edits facts instead. Hardware: see `python -m
experiments.plan --model EleutherAI/gpt-j-6B`. With --stream, memory holds the edited blocks and
what follows them alone.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command, Preset, main
from mend_jax.models.memory import Dtype
from mend_jax.runs.options import PaperConfig
from mend_jax.runs.run import run


@dataclass(frozen=True, kw_only=True)
class GPTJ(PaperConfig):
    """Options of the run; the defaults are the paper's."""

    out: Path = Path("runs/train_gptj")
    model: str = "EleutherAI/gpt-j-6B"
    dtype: Dtype = "bfloat16"


PRESETS = {
    "streamed": Preset(
        {
            "stream": True, "steps": 20, "rank": 1920, "max_train": 60, "max_validation": 20,
            "dev": 0, "calibrate": 2, "evaluate_every": 20, "checkpoint_every": 20,
        },
        "with a base of make_random and the records of make_general, 20 steps of 10 edits: a peak "
        "of 10.1 GB of resident memory; 15 minutes on two CPU cores beside other work, seed 0 "
        "(results/streamed_gptj.json)",
    ),
}  # fmt: skip

COMMAND = Command(GPTJ, run, __doc__, PRESETS)

if __name__ == "__main__":
    main(COMMAND)
