"""Asks the prompts of all edits that a store holds again, and prints what holds.

    mend-jax edits check --editor runs/scoped --store edits.db
    mend-jax edits check --editor runs/scoped --store edits.db --records FILE

A sample of neighbours is asked too, prompts that must stay as they were: of the project's facts, or
of your records, whose rephrases of held edits are asked then. Rows that are damaged are named, and
the exit code is 1 then.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mend_jax.commands.command import Command
from mend_jax.data.chat import in_template
from mend_jax.data.records import Record, rephrases_of
from mend_jax.data.sources.base import Reading
from mend_jax.data.sources.registry import read_noted
from mend_jax.evaluation.generation import matches
from mend_jax.models.registry import Base
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, Seed, Some, Tokens
from mend_jax.reports.before_after import BeforeAfter, before_after_of
from mend_jax.runs.opening import EditorPlace, OpeningOptions
from mend_jax.runs.splits import own_records
from mend_jax.saved.directory import load_editor
from mend_jax.store.database import StoreError
from mend_jax.store.store import EditStore


@dataclass(frozen=True, kw_only=True)
class CheckOptions(OpeningOptions):
    """Options of a check."""

    editor: EditorPlace
    """Directory of the editor that made the edits, or its name on the hub."""
    store: Input
    """The file of the store."""
    records: Input | None = None
    """Records whose rephrases are asked, of edits that are held, and whose locality prompts are
    neighbours, which must stay, unless they are edited; by default the project's held-out facts."""
    neighbours: Some = 100
    """Of these, so many are asked."""
    seed: Seed = 0
    """Of their choice."""
    tokens: Tokens = 12
    """Longest answer, in tokens."""


def check(config: CheckOptions) -> None:
    """Asks, prints."""
    check_options(config)
    read = records_in(config.records) if config.records else None
    saved = load_editor(config.editor, dtype=config.dtype, trust=config.trust, force=config.force)
    with EditStore(config.store, saved, create=False) as store:
        shown = before_after_of(saved, config.tokens)
        given = records_for(saved.base, read)
        check_edits(store, shown)
        check_rephrases(store, shown, given)
        near = neighbours_of(config, given)
        near = [prompt for prompt in near if store.ledger.find(prompt) is None]
        if near:
            check_neighbours(store, shown, near)
        damaged = store.damaged
    for number, why in damaged.items():
        print(f"{number}: damaged, and not held: {why}")
    if damaged:
        raise StoreError(f"{config.store}: {len(damaged)} rows are damaged")


def neighbours_of(config: CheckOptions, records: Sequence[Record]) -> list[str]:
    """A sample of the locality prompts of the records, without those asked twice."""
    prompts = list(dict.fromkeys(x.prompt for r in records for x in r.locality))
    return random.Random(config.seed).sample(prompts, min(config.neighbours, len(prompts)))


def records_for(base: Base, read: Sequence[Record] | None) -> list[Record]:
    """Records in the base's template; the project's held-out ones, if none were read."""
    if read is None:
        return own_records(base, Reading("validation"))[0]
    return in_template(base, read)


def records_in(file: Path) -> list[Record]:
    """The records of a file, whose notes are printed.

    Raises:
      ValueError: they have neither rephrases nor locality to ask.
    """
    read = read_noted(file)
    for note in read.notes:
        print(f"{file}: {note}")
    if not any(record.rephrases or record.locality for record in read.records):
        raise ValueError(f"{file}: its records have neither rephrases nor locality to ask")
    return read.records


def check_edits(store: EditStore, shown: BeforeAfter) -> None:
    """Whether each edit is said."""
    held = store.ledger.at(store.event).edits
    edits = [held[number] for number in store.numbers.tolist() if number]
    lines = max((len(edit.words.target.strip().splitlines()) for edit in edits), default=1)
    answers = shown.ask(store.held, [edit.words.prompt for edit in edits], lines)
    good = 0
    for edit, answer in zip(edits, answers, strict=True):
        if matches(answer.after, edit.words.target, "contains"):
            good += 1
            continue
        print(f"{edit.id}: {edit.words.prompt} -> {edit.words.target}\n    says: {answer.after}")
    print(f"{good} of {len(edits)} edits hold on their own prompt")


def check_rephrases(store: EditStore, shown: BeforeAfter, records: Sequence[Record]) -> None:
    """Whether each edit is said in the other words that its record has."""
    held = store.ledger.at(store.event).edits
    edits = [held[number].words for number in store.numbers.tolist() if number]
    known = {words.prompt: words.target.strip() for words in edits}
    asked = [
        (rephrase.prompt, rephrase.target)
        for record in records
        if known.get(record.prompt) == record.target.strip()
        for rephrase in rephrases_of(record)
    ]
    if not asked:
        return
    lines = max(len(target.strip().splitlines()) for _, target in asked)
    good = 0
    for (_, target), said in zip(
        asked, shown.ask(store.held, [prompt for prompt, _ in asked], lines), strict=True
    ):
        if matches(said.after, target, "contains"):
            good += 1
            continue
        print(f"{said.prompt} -> {target}\n    says: {said.after}")
    print(f"{good} of {len(asked)} rephrases hold")


def check_neighbours(store: EditStore, shown: BeforeAfter, prompts: list[str]) -> None:
    """Whether each neighbour is answered as by the base."""
    good = 0
    for answer in shown.ask(store.held, prompts):
        if answer.after == answer.before:
            good += 1
            continue
        print(f"{answer.prompt}\n    before: {answer.before}\n    after:  {answer.after}")
    print(f"{good} of {len(prompts)} neighbours stay")


COMMAND = Command(CheckOptions, check, __doc__)
