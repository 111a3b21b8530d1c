"""Makes a TensorFlow Datasets folder of records, read at random places without TensorFlow.

    mend-jax prepare --records FILE --out DIR

Needs `pip install "mend_jax[data]"`. Wherever a command takes a file of records, it takes the
folder too; `mend_jax.data.prepared.shuffled` walks one too large for memory, with Grain.
"""

from dataclasses import dataclass
from typing import Literal

from mend_jax.commands.command import Command
from mend_jax.data.sources.registry import read_records
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, OutFolder
from mend_jax.runs.option_groups import ReadingOptions
from mend_jax.runs.splits import reading_of


@dataclass(frozen=True, kw_only=True)
class Prepare(ReadingOptions):
    """Options of the preparation. What a published file leaves open is settled here: a prepared
    folder is read as it is, but for --locality."""

    records: Input
    """Records: your own JSONL, or a published file that `mj.read_records` knows."""
    out: OutFolder
    """Directory for records/1.0.0."""
    split: Literal["train", "validation"] = "train"
    """What the records are for; templates and locality questions are others in training than in
    scoring."""


def prepare(config: Prepare) -> None:
    """Reads, writes, and says what was written."""
    check_options(config)
    try:
        from mend_jax.data.prepared import write_prepared
    except ImportError as error:
        raise RuntimeError(f'{error}: pip install "mend_jax[data]"') from None
    records = read_records(config.records, reading_of(config, config.split))
    print(f"{write_prepared(config.out, records)}: {len(records):,} records")


COMMAND = Command(Prepare, prepare, __doc__)
