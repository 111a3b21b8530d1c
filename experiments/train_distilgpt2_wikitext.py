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

from mend_jax.commands.command import Command, Preset, main
from mend_jax.runs.options import PaperConfig
from mend_jax.runs.run import run


@dataclass(frozen=True, kw_only=True)
class DistilGPT2Wikitext(PaperConfig):
    """Options of the run; the defaults are the paper's."""

    out: Path = Path("runs/train_distilgpt2_wikitext")
    model: str = "distilbert/distilgpt2"


PRESETS = {
    "smollm2": Preset(
        {
            "model": "smollm2-135m", "rank": 256,
            "sites": "layers_(25|26|27|28|29)/mlp/(gate|up)_proj", "steps": 480,
            "learning_rate": 2e-5, "alpha": 6e-4, "alpha_learning_rate": 6e-5, "decay": "cosine",
            "c_edit": 0.45, "ridge": 0.05, "words": True, "calibrate": 120, "swap": True,
            "near": 0, "far": 1, "longest": 64, "longest_answer": 16, "dev": 100,
            "evaluate_every": 60, "checkpoint_every": 100_000, "patience": 0,
        },
        "with the files of make_wikitext from WikiText-2's validation text (--edits 2500), 300 "
        "edits: all ten tokens right in 0.791 (0.753 to 0.831), perplexity drawdown 0.79 (0.54 to "
        "1.07) from 53.79; 53 minutes on two CPU cores, seed 0 (results/wikitext_smollm2.json)",
    ),
}  # fmt: skip

COMMAND = Command(DistilGPT2Wikitext, run, __doc__, PRESETS)

if __name__ == "__main__":
    main(COMMAND)
