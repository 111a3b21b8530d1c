"""What every reader of a data set is given, and what it gives back.

A reader is a function (rows, reading) -> Read: the rows of a file, checked to be JSON objects, and
the choices that a published file leaves open.
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mend_jax.data.records import Locality, Record, text_of


class Reading(NamedTuple):
    """What a published file leaves open.

    split: what the records are for: phrasings made of templates, and the questions of a locality
      file, are others in training than in scoring.
    flip: of FEVER: "all" edits flip the verdict; "half" of them do, as in the paper, and the others
      keep what the model says already.
    locality: a file of questions that takes the place of whatever locality the records have.
    localities: locality pairs of a record, drawn from that file, or from other rows of its own.
    questions: of a locality file: "sentence" begins each with a capital and ends it with a question
      mark, "exact" leaves it as it is.
    seed: of everything that is drawn.
    """

    split: Literal["train", "validation"] = "train"
    flip: Literal["all", "half"] = "all"
    locality: Path | None = None
    localities: int = 4
    questions: Literal["sentence", "exact"] = "sentence"
    seed: int = 0


class Row(NamedTuple):
    """A JSON object and where it stands: the file, and the line or record in it."""

    file: str
    place: str
    value: Mapping[str, Any]

    @property
    def where(self) -> str:
        """How an error message about this row begins."""
        return f"{self.file}, {self.place}"


class Read(NamedTuple):
    """Records, and notes in words: what was left out, and what was made up."""

    records: list[Record]
    notes: list[str]


def record_by(
    row: Row, prompt: str, target: str, rephrase: str, locality: str, answer: str, kind: str
) -> Record:
    """The record of a row with one rephrase and one locality prompt at most.

    Args:
      prompt, target, rephrase, locality, answer: the names of its fields.
      kind: of its locality prompt.
    """

    def text(field: str, required: bool = True) -> str:
        return text_of(row.value, field, row.where, required)

    stays = (Locality(text(locality), text(answer), kind),) if row.value.get(locality) else ()
    again = text(rephrase, required=False)
    subject = text("subject", required=False)
    return Record(text(prompt), text(target), (again,) if again else (), stays, subject)


def left_out(places: Sequence[str], used: int, why: str) -> list[str]:
    """The note on rows that are not used, beside those that are; none, if all are."""
    if not places:
        return []
    rows = f"{len(places)} of {len(places) + used} rows"
    return [f"{rows} {why} (the first: {places[0]}) and are left out"]


def distinct(pairs: Iterable[Locality]) -> list[Locality]:
    """One pair of each prompt, the first."""
    found: dict[str, Locality] = {}
    for pair in pairs:
        found.setdefault(pair.prompt.casefold(), pair)
    return list(found.values())


def draw_locality(
    rng: random.Random, pool: Sequence[Locality], count: int, but: Collection[str]
) -> tuple[Locality, ...]:
    """`count` pairs of a distinct pool (all, if it has fewer), none with a prompt among `but`."""
    barred = {text.casefold() for text in but}
    drawn = rng.sample(pool, min(len(pool), count + len(barred)))
    return tuple(pair for pair in drawn if pair.prompt.casefold() not in barred)[:count]
