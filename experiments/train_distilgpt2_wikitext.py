"""Trains MEND for DistilGPT-2 on text generation.

    python -m experiments.train_distilgpt2_wikitext --train FILE --validation FILE
    python -m experiments.pretrain --family gpt2 --out runs/gpt2
    python -m experiments.train_distilgpt2_wikitext --model runs/gpt2

The paper (Table 4): edit success 0.86, perplexity drawdown 0.225. Data: continuations of Wikitext
passages, the authors' `self_sample` files or records; the second pair of commands edits facts
instead. Hardware: a GPU of any size, or a CPU.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command, main
from mend_jax.runs.options import PaperConfig
from mend_jax.runs.run import run


@dataclass(frozen=True, kw_only=True)
class DistilGPT2Wikitext(PaperConfig):
    """Options of the run; the defaults are the paper's."""

    out: Path = Path("runs/train_distilgpt2_wikitext")
    model: str = "distilbert/distilgpt2"


COMMAND = Command(DistilGPT2Wikitext, run, __doc__)

if __name__ == "__main__":
    main(COMMAND)
