"""The records of a run: read or dealt, split by subject, tokenised, counted."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mend_jax.data.codec import codec_of
from mend_jax.data.edited_subjects import without_edited_subjects
from mend_jax.data.records import Record, drop_known_subjects, of_some_subjects
from mend_jax.data.sources.base import Read, Reading
from mend_jax.data.sources.claims import claim_records
from mend_jax.data.sources.facts import facts_records
from mend_jax.data.sources.registry import read_noted, replace_locality
from mend_jax.data.token_records import Skipped, TokenRecord, encode_records, grouped, sum_of
from mend_jax.models.registry import Base
from mend_jax.runs.option_groups import ReadingOptions
from mend_jax.runs.options import ExperimentError, TrainConfig

KNOWS_FACTS = "pretraining.json"
"""The file that `mend-jax pretrain` leaves in the folder of a base."""
OBEYED = "locality prompts about subjects that are edited beside"
"""What the count of these is called."""


class Given(NamedTuple):
    """The records of a run, the name of the data set, and what is said of its files."""

    train: list[Record]
    validation: list[Record]
    name: str
    notes: dict[str, list[str]]


class Data(NamedTuple):
    """Tokenised records of a run, and what was left out, in words."""

    train: list[TokenRecord]
    dev: list[TokenRecord]
    validation: list[TokenRecord]
    left_out: dict[str, Any]


def check_data(config: TrainConfig) -> None:
    """Raises ExperimentError unless there is something to train on, and to score on."""
    if config.train is not None and config.validation is None:
        raise ExperimentError("--train FILE needs --validation FILE, to score the editor on")
    if config.train is not None and config.records is not None:
        raise ExperimentError("--records are added to the project's facts: leave out --train")
    knows = config.anything_knows_facts or (Path(config.model) / KNOWS_FACTS).is_file()
    if config.train is None and not knows:
        raise ExperimentError(
            f"--model {config.model} was not made by `mend-jax pretrain`, so it need not know "
            "the project's facts: give --train FILE and --validation FILE"
        )


def reading_of(config: ReadingOptions, split: Literal["train", "validation"]) -> Reading:
    """How files of this split are read."""
    return Reading(
        split, config.flip, config.locality, config.localities, config.questions, config.seed
    )


def read_files(config: TrainConfig) -> Given | None:
    """The records of the files, if given."""
    if config.train is None or config.validation is None:
        return None
    name = f"{config.train}, scored on {config.validation}"
    train = read_noted(config.train, reading_of(config, "train"))
    scored = read_noted(config.validation, reading_of(config, "validation"))
    notes = {"training file": train.notes, "validation file": scored.notes}
    chosen = of_some_subjects(train.records, config.train_share)
    if others := len(train.records) - len(chosen):
        notes["training file"] = [*train.notes, f"records of subjects that are left: {others}"]
    return Given(chosen, scored.records, name, notes)


def own_records(base: Base, reading: Reading, phrasings: int = 0) -> tuple[list[Record], str]:
    """The project's facts, or for a classifier claims about them; and which of the two.

    Args:
      phrasings: of each relation in training (`facts.relations_for`).
    """
    claims = base.model.kind == "classifier"
    made = claim_records if claims else facts_records
    records = made(reading.split, reading.seed, phrasings)
    return replace_locality(records, reading), "claims" if claims else "facts"


def read_more(config: TrainConfig) -> Read:
    """The records that are added to the facts."""
    if config.records is None:
        return Read([], [])
    return read_noted(config.records, reading_of(config, "train"))


def deal_facts(config: TrainConfig, base: Base, more: Read) -> Given:
    """As `read_files`, of the project's own records and of more; scored on the held-out ones, or on
    a file."""
    train, name = own_records(base, reading_of(config, "train"), config.phrasings)
    if more.records:
        train, name = [*train, *more.records], f"{name} and {config.records}"
    notes = {"records file": more.notes}
    scored = reading_of(config, "validation")
    if config.validation is not None:
        name = f"{name}, scored on {config.validation}"
        file = read_noted(config.validation, scored)
        return Given(train, file.records, name, notes | {"validation file": file.notes})
    return Given(train, own_records(base, scored)[0], name, notes)


def prepare(config: TrainConfig, base: Base, given: Given) -> Data:
    """Splits by subject, tokenises, and counts what does not fit, beside what the files' readers
    have counted.

    Raises:
      ExperimentError: nothing is left to train on, or to score.
    """
    validation, known = drop_known_subjects(given.validation, given.train)
    rng = random.Random(config.seed)
    train = list(given.train)
    rng.shuffle(train)
    dev_subjects: list[Record] = train[: config.dev]
    rest, shared = drop_known_subjects(train[config.dev :], dev_subjects)
    encode = codec_of(base).pair
    limits = (config.longest, config.longest_answer)
    kept, skipped = encode_records(rest[: config.max_train or None], encode, *limits)
    dev, skipped_dev = encode_records(dev_subjects, encode, *limits)
    held_out, skipped_validation = encode_records(
        validation[: config.max_validation or None], encode, *limits
    )
    k = config.k
    trained = 1 if config.scope else k  # in scopes each is made alone, and k are held together
    if trained > 1:
        parts = {"training": kept, "development": dev, "validation": held_out}
        few = [name for name, part in parts.items() if len(part) < k]
        if few:
            raise ExperimentError(f"--k {k}: there are fewer {' and '.join(few)} records than that")
        if not config.allow_conflicts:
            check_conflicts([kept, *grouped(dev, k), *grouped(held_out, k)])
    dev, _ = without_edited_subjects(dev, trained)
    held_out, obeyed = without_edited_subjects(held_out, k)
    left_out = {
        "validation records of known subjects": known,
        "training records of development subjects": shared,
        **_told("training", skipped, skipped_dev),
        **_told("validation", skipped_validation),
        "validation records that fill no group": len(held_out) % k,
        **({OBEYED: obeyed} if obeyed else {}),
        **{file: notes for file, notes in given.notes.items() if notes},
    }
    if not kept or not held_out:
        what = "training" if not kept else "validation"
        raise ExperimentError(
            f"no {what} records are left ({left_out}; {len(dev)} for development): other records, "
            "a larger --longest or --longest-answer, or a smaller --dev are needed"
        )
    return Data(kept, dev, held_out, left_out)


def check_conflicts(groups: Sequence[Sequence[TokenRecord]]) -> None:
    """Checks that no prompt is edited to two different targets at once.

    Raises:
      ExperimentError: one is; names the prompts and their targets.
    """
    found = []
    for group in groups:
        targets: dict[str, str] = {}
        for record in (entry.record for entry in group):
            first = targets.setdefault(record.prompt, record.target)
            if first != record.target:
                found.append(f"{record.prompt!r} to {first!r} and {record.target!r}")
    if found:
        raise ExperimentError(
            f"edits made at once contradict each other: {'; '.join(found[:5])}"
            f"{f' and {len(found) - 5} more' if len(found) > 5 else ''}. Leave them out, or allow "
            "it with --allow-conflicts"
        )


def _told(part: str, *skipped: Skipped) -> dict[str, dict[str, int]]:
    whole = sum_of(*skipped)
    counts = {"too long": whole.too_long._asdict()} | whole.in_words()
    return {f"{name}, {part}": count for name, count in counts.items()}
