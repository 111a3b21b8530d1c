"""The one list of data sets, and any file of them: which it holds is recognised from its content.

A file is JSONL, a JSON list or one JSON object; which data set it holds is seen by the fields of
its first row. Every later row has to be of the same form.
"""

import random
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mend_jax.data.fields import RecordError
from mend_jax.data.own_subject import with_own
from mend_jax.data.records import Locality, Record, rephrases_of
from mend_jax.data.sources import (
    counterfact,
    fever,
    knowedit,
    knowledge_editor,
    natural_questions,
    own,
    rome,
    wikitext,
    zsre,
)
from mend_jax.data.sources.base import (
    Answers,
    Read,
    Reading,
    Row,
    Source,
    counted,
    distinct,
    draw_locality,
    stripped,
)
from mend_jax.data.sources.facts import in_split
from mend_jax.data.sources.json_file import rows_of
from mend_jax.data.sources.notes import oddities, unread_fields, watched

SOURCES = (
    own.SOURCE,
    own.CHAT,
    counterfact.SOURCE,
    rome.SOURCE,
    knowedit.SOURCE,
    zsre.SOURCE,
    knowledge_editor.SOURCE,
    fever.SOURCE,
    wikitext.SOURCE,
    natural_questions.SOURCE,
    natural_questions.OBJECT,
)
"""Every form that a file of records, or of locality, can have."""


def read_records(path: str | Path, reading: Reading = Reading()) -> list[Record]:
    """Records of a file, as `read_noted`, whose notes are warnings here."""
    return _warned(path, read_noted(path, reading))


def read_noted(path: str | Path, reading: Reading = Reading()) -> Read:
    """Records of a file in any form of `SOURCES` that has edits, the user's own first of all; or of
    a folder that `mend-jax prepare` has written.

    Published files have rows that cannot be edits, and lack rephrases or locality: notes count what
    is left out, name fields that are not read, and say what is made up and what is likely a
    mistake. In every other case an empty field is an error.

    Args:
      reading: what such files leave open.

    Raises:
      RecordError: broken JSON, a missing, empty or mistyped field (with file and line), a file of
        none of these forms (with the nearest), not UTF-8, or without records; a folder, without
        the packages that read it.
      FileNotFoundError: no such file.
    """
    if Path(path).is_dir():
        records = _read_folder(Path(path))
        notes: list[str] = []
    else:
        source, rows = _recognise(Path(path))
        if source.read is None:
            raise RecordError(f"{path}: {source.name} has no edits; it can be given as locality")
        unread: Counter[str] = Counter()
        records, notes = source.read(watched(rows, source, unread), reading)
        notes = notes + unread_fields(source, unread)
    if not records:
        raise RecordError("; ".join([f"{path}: no records in this file", *notes]))
    records, of_locality = _replaced(records, reading)
    notes = notes + of_locality + oddities(records)
    if reading.split == "validation":
        records = with_own(records, reading.seed)
    return Read(records, notes)


def replace_locality(records: list[Record], reading: Reading) -> list[Record]:
    """The records with pairs of the locality file, if one is given, in place of their own.

    Of its questions, those of another split are left alone, so that no question that an editor was
    trained to leave as it is scores it. What is left out is counted in warnings.

    Raises:
      RecordError: as `read_records`; or the file has no question for this split.
    """
    return _warned(None, _replaced(records, reading))


def _replaced(records: list[Record], reading: Reading) -> Read:
    if reading.locality is None:
        return Read(records, [])
    pairs, notes = _read_answers(reading.locality, reading)
    pool = [pair for pair in pairs if in_split(_bare(pair.prompt), reading.split)]
    if not pool:
        raise RecordError(
            f"{reading.locality}: none of {len(pairs)} questions is for {reading.split}"
        )
    rng = random.Random(f"locality {reading.split} {reading.seed}")
    others = [
        record._replace(
            locality=draw_locality(
                rng,
                pool,
                reading.localities,
                [record.prompt, *(r.prompt for r in rephrases_of(record))],
            )
        )
        for record in records
    ]
    had = sum(len(record.locality) for record in records)
    notes = notes + counted((had, "locality prompts of the records give way to those of a file"))
    return Read(others, [f"{reading.locality}: {note}" for note in notes])


def _warned(path: str | Path | None, read: Read) -> list[Record]:
    """The records, once the notes are said."""
    for note in read.notes:
        warnings.warn(note if path is None else f"{path}: {note}", stacklevel=3)
    return read.records


def _bare(question: str) -> str:
    """The question, however it is written, so that it is always dealt to the same split."""
    return question.rstrip("? ").casefold()


def _read_folder(path: Path) -> list[Record]:
    try:
        from mend_jax.data.prepared import read_prepared  # needs packages that few want
    except ImportError as error:
        raise RecordError(
            f'{path} is a folder; to read prepared records: pip install "mend_jax[data]" ({error})'
        ) from None
    return read_prepared(path)


def read_answers(path: str | Path, reading: Reading = Reading()) -> list[Locality]:
    """Questions with their true answers, each question once: of a file that can be locality.

    Warnings count what is left out.

    Raises:
      RecordError: as `read_records`; or the file does not say what is true.
    """
    pairs, notes = _read_answers(path, reading)
    for note in notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    return pairs


def _read_answers(path: str | Path, reading: Reading) -> Answers:
    source, rows = _recognise(Path(path))
    if source.read_locality is None:
        raise RecordError(f"{path}: {source.name} cannot be given as locality")
    unread: Counter[str] = Counter()
    pairs, notes = source.read_locality(watched(rows, source, unread), reading)
    once = distinct(pairs)
    again = len(pairs) - len(once)
    notes = notes + counted(
        (again, f"of {len(pairs)} questions were asked before, and are left out")
    )
    return Answers(once, notes + unread_fields(source, unread))


def _recognise(path: Path) -> tuple[Source, Iterator[Row]]:
    """The source that the first row has all fields of; and all rows."""
    rows = rows_of(path)
    first = next(rows, None)
    if first is None:
        raise RecordError(f"{path}: no records in this file")
    present = {
        source: sum(field in first.value for field in source.fields) / len(source.fields)
        for source in SOURCES
    }
    nearest = max(SOURCES, key=present.__getitem__)
    if not present[nearest]:
        known = "; ".join(f"{source.name} ({', '.join(source.fields)})" for source in SOURCES)
        found = ", ".join(first.value) or "none"
        raise RecordError(
            f"{first.where}: no known format has any of these fields: {found}. Known are: {known}"
        )
    for field in nearest.fields:
        if field not in first.value:
            raise RecordError(
                f"{first.where}: the field {field!r} is missing (the nearest format: "
                f"{nearest.name}, with {', '.join(nearest.fields)})"
            )
    every = chain((first,), rows)
    return nearest, every if nearest.as_written else map(stripped, every)
