"""Any file of records: its format is recognised from its content.

A file is JSONL, a JSON list or one JSON object; which data set it holds is seen by the fields of
its first row. Every later row has to be of the same format.
"""

import json
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from mend_jax.data.records import Locality, Record, RecordError, parse_record, rephrases_of
from mend_jax.data.sources import counterfact, fever, kilt, natural_questions, wikitext, zsre
from mend_jax.data.sources.claims import VERDICTS
from mend_jax.data.sources.facts import in_split
from mend_jax.data.sources.reading import Read, Reading, Row, distinct, draw_locality


class Format(NamedTuple):
    """A data set, and the fields that tell it from the others.

    At least one of `read` and `read_locality` is there: of edits, and of true answers, which serve
    as locality.
    """

    name: str
    fields: tuple[str, ...]
    read: Callable[[Iterable[Row], Reading], Read] | None = None
    read_locality: Callable[[Iterable[Row], Reading], list[Locality]] | None = None


def read_records(path: str | Path, reading: Reading = Reading()) -> list[Record]:
    """Records of a file of the user's own, of CounterFact, zsRE, FEVER or Wikitext generation; or
    of a folder that `mend-jax prepare` has written.

    Published files have rows that cannot be edits, and lack rephrases or locality: a warning counts
    what is left out, and says what is made up. In every other case an empty field is an error.

    Args:
      reading: what such files leave open.

    Raises:
      RecordError: broken JSON, a missing, empty or mistyped field (with file and line), a file of
        none of these formats (with the nearest), not UTF-8, or without records; a folder, without
        the packages that read it.
      FileNotFoundError: no such file.
    """
    if Path(path).is_dir():
        return replace_locality(_read_folder(Path(path)), reading)
    form, rows = _recognise(Path(path))
    if form.read is None:
        raise RecordError(f"{path}: {form.name} has no edits; it can be given as locality")
    records, notes = form.read(rows, reading)
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
    form, rows = _recognise(Path(path))
    if form.read_locality is None:
        raise RecordError(f"{path}: {form.name} cannot be given as locality")
    return distinct(form.read_locality(rows, reading))


def _missing(records: list[Record]) -> list[str]:
    """Notes on records without what generality or locality is measured on."""
    counts = (
        ("rephrases", sum(not record.rephrases for record in records)),
        ("locality", sum(not record.locality for record in records)),
    )
    return [f"{n} of {len(records)} records have no {what}" for what, n in counts if n]


def _own(rows: Iterable[Row], reading: Reading) -> Read:
    return Read([parse_record(row.value, row.where) for row in rows], [])


def _kilt(rows: Iterable[Row], reading: Reading) -> Read:
    """Of zsRE and FEVER, whose fields are the same: the answers tell them apart."""
    lines, notes = kilt.read_lines(rows)
    claims = any(line.answer in VERDICTS for line in lines)
    return Read((fever if claims else zsre).from_lines(lines, reading), notes)


FORMATS = (
    Format("a record of one's own", ("prompt", "target"), _own),
    Format("CounterFact", counterfact.FIELDS, counterfact.read_edits),
    Format("zsRE, MEND's list", zsre.FIELDS, zsre.read_edits),
    Format("zsRE or FEVER, KnowledgeEditor's lines", kilt.FIELDS, _kilt),
    Format("FEVER, a list of claims", fever.FIELDS, fever.read_claims, fever.read_verdicts),
    Format("Wikitext generation", wikitext.FIELDS, wikitext.read_completions),
    Format(
        "Natural Questions",
        natural_questions.FIELDS,
        read_locality=natural_questions.read_questions,
    ),
    Format(
        "Natural Questions in one object",
        natural_questions.OBJECT_FIELDS,
        read_locality=natural_questions.read_object,
    ),
)


def _recognise(path: Path) -> tuple[Format, Iterator[Row]]:
    """The format that the first row has all fields of; and all rows."""
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise RecordError(f"{path}: no records in this file")
    present = {
        form: sum(field in first.value for field in form.fields) / len(form.fields)
        for form in FORMATS
    }
    nearest = max(FORMATS, key=present.__getitem__)
    if not present[nearest]:
        known = "; ".join(f"{form.name} ({', '.join(form.fields)})" for form in FORMATS)
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


def _rows(path: Path) -> Iterator[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows begins a file with a mark
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 ({error})") from None
    for place, value in _values(path, text):
        if not isinstance(value, Mapping):
            raise RecordError(
                f"{path}, {place}: expected a JSON object, found {type(value).__name__}"
            )
        yield Row(str(path), place, value)


def _values(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """(where, value) of a list, of one object over several lines, or of lines."""
    lines = [
        (number, line)
        for number, line in enumerate(text.split("\n"), 1)  # splitlines() also splits in texts
        if line.strip()
    ]
    if text.lstrip()[:1] == "[":
        for number, value in enumerate(_parse(path, text), 1):
            yield f"record {number}", value
    elif _is_spread(line for _, line in lines[:2]):
        yield "the object", _parse(path, text)
    else:
        for number, line in lines:
            yield f"line {number}", _parse(path, line, number)


def _is_spread(lines: Iterable[str]) -> bool:
    """Whether an object goes on in the second line."""
    first, second = [*lines, "", ""][:2]
    return bool(second) and not first.rstrip().endswith("}") and second.lstrip()[:1] != "{"


def _parse(path: Path, text: str, line: int = 1) -> Any:
    """The value of a JSON text that begins in this line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}, line {line + error.lineno - 1}"
        raise RecordError(f"{where}: not valid JSON ({error.msg})") from None
