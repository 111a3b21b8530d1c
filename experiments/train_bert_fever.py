"""Trains MEND for BERT-base on fact-checking.

    python -m experiments.train_bert_fever --train FILE --validation FILE
    python -m experiments.pretrain --family bert --out runs/bert
    python -m experiments.train_bert_fever --model runs/bert

The paper (Table 4): edit success above 0.99, accuracy drawdown below 0.001. Data: FEVER claims,
half of the verdicts flipped and half kept (`--flip all`: every one flipped). The base must be a
classifier of claims: `experiments.finetune_fever` makes one of an encoder. Hardware: a GPU of any
size, or a CPU.
"""

from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command, main
from mend_jax.runs.options import PaperConfig
from mend_jax.runs.run import run


@dataclass(frozen=True, kw_only=True)
class BertFever(PaperConfig):
    """Options of the run; the defaults are the paper's."""

    out: Path = Path("runs/train_bert_fever")
    model: str = "bert-base-uncased"


COMMAND = Command(BertFever, run, __doc__)

if __name__ == "__main__":
    main(COMMAND)
