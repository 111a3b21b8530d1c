"""Puts records of many kinds into one file, to train an editor that shall serve any others.

    mend-jax make_general --counterfact train.json --pararel DIR --apart validation.json --out DIR
    mend-jax train --train DIR/train.jsonl --validation DIR/validation.jsonl --out RUN

Writes train.jsonl, of the project's facts, of relations whose answers are made up, and of what is
given; and validation.jsonl, the held-out facts. No training record is about a subject of the
held-out facts, or of --apart.
"""

from dataclasses import dataclass

from mend_jax.commands.command import Command
from mend_jax.data.records import write_records
from mend_jax.data.sources.base import Reading
from mend_jax.data.sources.facts import facts_records
from mend_jax.data.sources.general import general_records
from mend_jax.data.sources.registry import read_noted
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, InputFolder, OutFolder, Seed, Some, Times


@dataclass(frozen=True, kw_only=True)
class MakeGeneral:
    """Options of the records."""

    out: OutFolder
    """Directory for train.jsonl and validation.jsonl."""
    counterfact: Input | None = None
    """File of CounterFact, or any other records."""
    pararel: InputFolder | None = None
    """Folder of ParaRel's data."""
    apart: Input | None = None
    """File of records about whose subjects nothing is to be learned."""
    most: Some = 1500
    """Records of each source but the facts, of which all are used."""
    chats: Times = 0
    """So many of all these are added once more as chats, told and asked in turns (0: none)."""
    seed: Seed = 0
    """Draws records, targets, phrasings and their order."""


def make(config: MakeGeneral) -> None:
    """Reads, mixes, writes, and says how many there are of what."""
    check_options(config)
    train, scored = (Reading(split, seed=config.seed) for split in ("train", "validation"))
    given = {}
    if config.counterfact is not None:
        given[config.counterfact.name] = read_noted(config.counterfact, train).records
    apart = read_noted(config.apart, scored).records if config.apart else []
    found = general_records(given, config.pararel, apart, config.most, config.seed, config.chats)
    config.out.mkdir(parents=True, exist_ok=True)
    write_records(config.out / "train.jsonl", found.records)
    write_records(config.out / "validation.jsonl", facts_records("validation", config.seed))
    for name, (used, there) in found.counts.items():
        print(f"{name}: {used:,} of {there:,} records")
    print(f"{config.out / 'train.jsonl'}: {len(found.records):,} records")


COMMAND = Command(MakeGeneral, make, __doc__)
