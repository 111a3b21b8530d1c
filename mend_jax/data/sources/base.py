"""What a data set is here: a `Source`, what its reader is given and what it gives back.

A reader is a function of the rows of a file, checked to be JSON objects, and of the choices that a
published file leaves open. What several readers do stands below.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mend_jax.data.fields import text_of
from mend_jax.data.records import Locality, Record, filled_in


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


class Answers(NamedTuple):
    """True answers to questions, and notes in words, as in `Read`."""

    pairs: list[Locality]
    notes: list[str]


class Source(NamedTuple):
    """A data set in one published form, and the fields that tell it from all others.

    At least one of `read` and `read_locality` is there: of edits, and of true answers, which serve
    as locality.

    optional: further fields that are read. unread: those that the published form has, and that say
      nothing that a record has a place for; every other field is named, as one that is not read.
    inner: fields that hold an object, or a list of objects, each with the fields in there.
    as_written: white space around texts is the user's; elsewhere it is an accident of the data set
      and taken off.
    """

    name: str
    fields: tuple[str, ...]
    read: Callable[[Iterable[Row], Reading], Read] | None = None
    read_locality: Callable[[Iterable[Row], Reading], Answers] | None = None
    optional: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    inner: tuple[tuple[str, tuple[str, ...]], ...] = ()
    as_written: bool = False


class FieldNames(NamedTuple):
    """What the fields of a row are called that has one rephrase and one locality prompt at most;
    "" for those that it never has."""

    prompt: str
    target: str
    rephrase: str
    locality: str
    answer: str
    subject: str = "subject"


def record_by(names: FieldNames, row: Row, kind: str) -> Record:
    """The record of such a row; its locality prompt is of this kind."""

    def text(field: str, required: bool = True) -> str:
        return text_of(row.value, field, row.where, required) if field else ""

    again = text(names.rephrase, required=False)
    subject = text(names.subject, required=False)
    asked = text(names.locality, required=False)
    if not asked and text(names.answer, required=False):
        text(names.locality)  # an answer, and no question to it
    stays = (Locality(asked, text(names.answer), kind),) if asked else ()
    rephrases = (again,) if again else ()
    record = Record(text(names.prompt), text(names.target), rephrases, stays, subject)
    return filled_in(record, row.where)


def left_out(places: Sequence[str], used: int, why: str) -> list[str]:
    """The note on rows that are not used, beside those that are; none, if all are."""
    if not places:
        return []
    rows = f"{len(places)} of {len(places) + used} rows"
    return [f"{rows} {why} (the first: {places[0]}) and are left out"]


def counted(*counts: tuple[int, str]) -> list[str]:
    """Notes on what is not zero: the number and what there is so much of."""
    return [f"{n} {what}" for n, what in counts if n]


def distinct(pairs: Iterable[Locality]) -> list[Locality]:
    """One pair of each prompt, the first."""
    found: dict[str, Locality] = {}
    for pair in pairs:
        found.setdefault(pair.prompt.casefold(), pair)
    return list(found.values())


def stripped(row: Row) -> Row:
    """The row without white space around its texts."""

    def bare(value: Any) -> Any:
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, Mapping):
            return {k: bare(v) for k, v in value.items()}
        return [bare(v) for v in value] if isinstance(value, list) else value

    return row._replace(value=bare(row.value))


def draw_locality(
    rng: random.Random, pool: Sequence[Locality], count: int, but: Collection[str]
) -> tuple[Locality, ...]:
    """`count` pairs of a distinct pool (all, if it has fewer), none with a prompt among `but`."""
    barred = {text.casefold() for text in but}
    drawn = rng.sample(pool, min(len(pool), count + len(barred)))
    return tuple(pair for pair in drawn if pair.prompt.casefold() not in barred)[:count]
