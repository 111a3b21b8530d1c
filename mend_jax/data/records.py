"""The one record schema, as users write it: one JSON object a line (JSONL).

    {"prompt", "target", "rephrases": [...], "subject"?,
     "locality": [{"prompt", "answer", "kind"?}]}

`prompt` is the beginning of a text, `target` what the edited model shall go on with, `rephrases`
other ways to ask for it, `locality` what must stay as it was. A rephrase is a text or, where the
same edit means another answer there, {"prompt", "target"}. Published data sets become the same
records, each in a file of its own; `sources.registry.read_records` reads them all.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

KINDS = ("near", "far")
"""Of locality; what is of no kind counts as the first."""


class RecordError(ValueError):
    """A record that cannot be used; says file, line and field."""


class Locality(NamedTuple):
    """A prompt whose answer must not move. kind: "near", "far", or "" if nobody said."""

    prompt: str
    answer: str
    kind: str = ""


class Rephrase(NamedTuple):
    """Another text that the edit reaches, and what is to follow there."""

    prompt: str
    target: str


class Record(NamedTuple):
    """One edit, as text. A rephrase that is a bare text has the record's target."""

    prompt: str
    target: str
    rephrases: tuple[str | Rephrase, ...] = ()
    locality: tuple[Locality, ...] = ()
    subject: str = ""


def rephrases_of(record: Record) -> tuple[Rephrase, ...]:
    """The record's rephrases, each with its target."""
    return tuple(Rephrase(r, record.target) if isinstance(r, str) else r for r in record.rephrases)


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Writes records as JSONL, the format users write."""
    lines = [json.dumps(to_json(record), ensure_ascii=False) for record in records]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def to_json(record: Record) -> dict[str, Any]:
    """The record as its JSON object."""
    return {
        "prompt": record.prompt,
        "target": record.target,
        "rephrases": [r if isinstance(r, str) else r._asdict() for r in record.rephrases],
        "locality": [
            {k: v for k, v in item._asdict().items() if v or k != "kind"}
            for item in record.locality
        ],
        **({"subject": record.subject} if record.subject else {}),
    }


def parse_record(row: Mapping[str, Any], where: str = "record") -> Record:
    """Checks one JSON object; `where` (file and line) begins the error message."""
    rephrases = tuple(
        _rephrase(item, f"{where}: rephrases[{i}]")
        for i, item in enumerate(_list_of(row, "rephrases", where, required=False))
    )
    items = []
    for i, item in enumerate(_list_of(row, "locality", where, required=False)):
        if not isinstance(item, Mapping):
            raise RecordError(
                f"{where}: locality[{i}] must be an object with 'prompt' and 'answer'"
            )
        at = f"{where}: locality[{i}]"
        kind = text_of(item, "kind", at, required=False)
        if kind not in (*KINDS, ""):
            known = " or ".join(map(repr, KINDS))
            raise RecordError(f"{at}: 'kind' must be {known}, found {kind!r}")
        items.append(Locality(text_of(item, "prompt", at), text_of(item, "answer", at), kind))
    return Record(
        prompt=text_of(row, "prompt", where),
        target=text_of(row, "target", where),
        rephrases=rephrases,
        locality=tuple(items),
        subject=text_of(row, "subject", where, required=False),
    )


def _rephrase(item: Any, where: str) -> str | Rephrase:
    if isinstance(item, Mapping):
        return Rephrase(text_of(item, "prompt", where), text_of(item, "target", where))
    if not isinstance(item, str) or not item.strip():
        raise RecordError(f"{where} must be a text that is not empty")
    return item.strip()


def text_of(row: Mapping[str, Any], field: str, where: str, required: bool = True) -> str:
    """A field that holds a text, stripped; without `required`, "" where it is absent or empty."""
    value = row.get(field)
    if value is None and not required:
        return ""
    if value is None:
        raise RecordError(f"{where}: the field {field!r} is missing")
    if not isinstance(value, str):
        raise RecordError(f"{where}: {field!r} must be a text, found {type(value).__name__}")
    if required and not value.strip():
        raise RecordError(f"{where}: {field!r} is empty")
    return value.strip()


def texts_of(
    row: Mapping[str, Any], field: str, where: str, required: bool = True, blank: bool = False
) -> tuple[str, ...]:
    """A field that holds a list of texts, stripped; with `blank`, there may be empty ones."""
    texts = _list_of(row, field, where, required)
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not (blank or text.strip()):
            wanted = "a text" if blank else "a text that is not empty"
            raise RecordError(f"{where}: {field}[{i}] must be {wanted}")
    return tuple(text.strip() for text in texts)


def _list_of(row: Mapping[str, Any], field: str, where: str, required: bool) -> list[Any]:
    value = row.get(field)
    if value is None and not required:
        return []
    if value is None:
        raise RecordError(f"{where}: the field {field!r} is missing")
    if not isinstance(value, list):
        raise RecordError(f"{where}: {field!r} must be a list, found {type(value).__name__}")
    return value


def drop_known_subjects(
    records: Sequence[Record], known: Iterable[Record]
) -> tuple[list[Record], int]:
    """Records whose subject (or prompt, without one) is not among the known; and how many were."""
    subjects = {_identity(record) for record in known}
    kept = [record for record in records if _identity(record) not in subjects]
    return kept, len(records) - len(kept)


def _identity(record: Record) -> str:
    return (record.subject or record.prompt).strip().casefold()
