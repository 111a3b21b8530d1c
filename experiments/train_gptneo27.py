"""Trains MEND for GPT-Neo 2.7B on text generation.

    python -m experiments.train_gptneo27 --train FILE --validation FILE
    python -m experiments.pretrain --family gpt_neo --out runs/gpt_neo
    python -m experiments.train_gptneo27 --model runs/gpt_neo

The paper (Table 3): edit success 0.81, perplexity drawdown 0.057. Data: continuations of Wikitext
passages, as records; the second pair of commands edits facts instead. Hardware: see `python -m
experiments.plan --model EleutherAI/gpt-neo-2.7B`.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command, main
from mend_jax.runs.options import PaperConfig
from mend_jax.runs.run import run


@dataclass(frozen=True, kw_only=True)
class GPTNeo27(PaperConfig):
    """Options of the run; the defaults are the paper's."""

    out: Path = Path("runs/train_gptneo27")
    model: str = "EleutherAI/gpt-neo-2.7B"


COMMAND = Command(GPTNeo27, run, __doc__)

if __name__ == "__main__":
    main(COMMAND)
