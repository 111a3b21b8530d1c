"""The one list of data sets, and any file of them: which it holds is recognised from its content.

A file is JSONL, a JSON list or one JSON object; which data set it holds is seen by the fields of
its first row. Every later row has to be of the same form.
"""

import random
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mend_jax.data.records import Locality, Record, RecordError, rephrases_of
from mend_jax.data.sources import (
    counterfact,
    fever,
    knowledge_editor,
    natural_questions,
    own,
    wikitext,
    zsre,
)
from mend_jax.data.sources.base import Reading, Row, Source, distinct, draw_locality
from mend_jax.data.sources.facts import in_split
from mend_jax.data.sources.json_file import rows_of

SOURCES = (
    own.SOURCE,
    counterfact.SOURCE,
    zsre.SOURCE,
    knowledge_editor.SOURCE,
    fever.SOURCE,
    wikitext.SOURCE,
    natural_questions.SOURCE,
    natural_questions.OBJECT,
)
"""Every form that a file of records, or of locality, can have."""


def read_records(path: str | Path, reading: Reading = Reading()) -> list[Record]:
    """Records of a file in any form of `SOURCES` that has edits, the user's own first of all; or of
    a folder that `mend-jax prepare` has written.

    Published files have rows that cannot be edits, and lack rephrases or locality: a warning counts
    what is left out, and says what is made up. In every other case an empty field is an error.

    Args:
      reading: what such files leave open.

    Raises:
      RecordError: broken JSON, a missing, empty or mistyped field (with file and line), a file of
        none of these forms (with the nearest), not UTF-8, or without records; a folder, without
        the packages that read it.
      FileNotFoundError: no such file.
    """
    if Path(path).is_dir():
        return replace_locality(_read_folder(Path(path)), reading)
    source, rows = _recognise(Path(path))
    if source.read is None:
        raise RecordError(f"{path}: {source.name} has no edits; it can be given as locality")
    records, notes = source.read(rows, reading)
    if not records:
        raise RecordError("; ".join([f"{path}: no records in this file", *notes]))
    records = replace_locality(records, reading)
    for note in notes + _missing(records):
        warnings.warn(f"{path}: {note}", stacklevel=2)
    return records


def replace_locality(records: list[Record], reading: Reading) -> list[Record]:
    """The records with pairs of the locality file, if one is given, in place of their own.

    Of its questions, those of another split are left alone, so that no question that an editor was
    trained to leave as it is scores it.

    Raises:
      RecordError: as `read_records`; or the file has no question for this split.
    """
    if reading.locality is None:
        return records
    pairs = read_answers(reading.locality, reading)
    pool = [pair for pair in pairs if in_split(_bare(pair.prompt), reading.split)]
    if not pool:
        raise RecordError(
            f"{reading.locality}: none of {len(pairs)} questions is for {reading.split}"
        )
    rng = random.Random(f"locality {reading.split} {reading.seed}")
    return [
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

    Raises:
      RecordError: as `read_records`; or the file does not say what is true.
    """
    source, rows = _recognise(Path(path))
    if source.read_locality is None:
        raise RecordError(f"{path}: {source.name} cannot be given as locality")
    return distinct(source.read_locality(rows, reading))


def _missing(records: list[Record]) -> list[str]:
    """Notes on records without what generality or locality is measured on."""
    counts = (
        ("rephrases", sum(not record.rephrases for record in records)),
        ("locality", sum(not record.locality for record in records)),
    )
    return [f"{n} of {len(records)} records have no {what}" for what, n in counts if n]


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
    return nearest, chain((first,), rows)
