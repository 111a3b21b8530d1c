"""The one record schema, and the files it is read from.

    {"prompt", "target", "rephrases": [...], "subject"?,
     "locality": [{"prompt", "answer", "kind"?}]}

One JSON object a line (JSONL) is what users write themselves; a JSON list in the format of
CounterFact, or of zsRE as MEND's edits are published, becomes the same records. `prompt` is the
beginning of a text, `target` what the edited model shall go on with, `rephrases` other ways to
ask for it, `locality` what must stay as it was. A rephrase is a text or, where the same edit means
another answer there, {"prompt", "target"}.
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


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


def read_records(path: str | Path) -> list[Record]:
    """Reads JSONL records, a JSON list in the format of CounterFact or zsRE, or a prepared folder.

    Published zsRE has rows with no answer to edit towards: they are left out, with a warning that
    says how many. In every other format an empty field is an error.

    Raises:
      RecordError: broken JSON, a missing, empty or mistyped field (with file and line), or a file
        that is not UTF-8 or holds no records; a folder, without the packages that read it.
      FileNotFoundError: no such file.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows begins a file with a mark
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 ({error})") from None
    if text.lstrip()[:1] == "[":
        records = list(_read_list(path, text))
    else:
        records = list(_read_lines(path, text))
    if not records:
        raise RecordError(f"{path}: no records in this file")
    return records


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


def parse_record(row: Any, where: str = "record") -> Record:
    """Checks one JSON object; `where` (file and line) begins the error message."""
    if not isinstance(row, Mapping):
        raise RecordError(f"{where}: expected a JSON object, found {type(row).__name__}")
    if "target_new" in row:
        return _from_counterfact(row, where)
    if "src" in row:
        return _from_zsre(row, where)
    rephrases = row.get("rephrases", [])
    locality = row.get("locality", [])
    for field, value in (("rephrases", rephrases), ("locality", locality)):
        if not isinstance(value, list):
            raise RecordError(f"{where}: {field!r} must be a list, found {type(value).__name__}")
    items = []
    for i, item in enumerate(locality):
        if not isinstance(item, Mapping):
            raise RecordError(
                f"{where}: locality[{i}] must be an object with 'prompt' and 'answer'"
            )
        at = f"{where}: locality[{i}]"
        kind = _text(item, "kind", at, required=False)
        if kind not in ("near", "far", ""):
            raise RecordError(f"{at}: 'kind' must be 'near' or 'far', found {kind!r}")
        items.append(Locality(_text(item, "prompt", at), _text(item, "answer", at), kind))
    return Record(
        prompt=_text(row, "prompt", where),
        target=_text(row, "target", where),
        rephrases=tuple(
            _rephrase(item, f"{where}: rephrases[{i}]") for i, item in enumerate(rephrases)
        ),
        locality=tuple(items),
        subject=_text(row, "subject", where, required=False),
    )


def _rephrase(item: Any, where: str) -> str | Rephrase:
    if isinstance(item, Mapping):
        return Rephrase(_text(item, "prompt", where), _text(item, "target", where))
    if not isinstance(item, str) or not item.strip():
        raise RecordError(f"{where} must be a text that is not empty")
    return item.strip()


def drop_known_subjects(
    records: Sequence[Record], known: Iterable[Record]
) -> tuple[list[Record], int]:
    """Records whose subject (or prompt, without one) is not among the known; and how many were."""
    subjects = {_identity(record) for record in known}
    kept = [record for record in records if _identity(record) not in subjects]
    return kept, len(records) - len(kept)


def _identity(record: Record) -> str:
    return (record.subject or record.prompt).strip().casefold()


def _read_folder(path: Path) -> list[Record]:
    try:
        from mend_jax.data.prepared import read_prepared  # needs packages that few want
    except ImportError as error:
        raise RecordError(
            f'{path} is a folder; to read prepared records: pip install "mend_jax[data]" ({error})'
        ) from None
    return read_prepared(path)


def _read_lines(path: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() also splits in texts
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}, line {number}: not valid JSON ({error})") from None
        yield parse_record(row, f"{path}, line {number}")


def _read_list(path: Path, text: str) -> Iterator[Record]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    without = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, Mapping) and "src" in row and row.get("alt") == "":
            without.append(number)
        else:
            yield parse_record(row, f"{path}, record {number}")
    if without:
        warnings.warn(
            f"{path}: {len(without)} of {len(rows)} rows have an empty 'alt' (the first: record "
            f"{without[0]}) and are left out",
            stacklevel=3,
        )


def _from_counterfact(row: Mapping[str, Any], where: str) -> Record:
    locality: tuple[Locality, ...] = ()
    if row.get("locality_prompt"):
        prompt = _text(row, "locality_prompt", where)
        locality = (Locality(prompt, _text(row, "locality_ground_truth", where)),)
    rephrase = _text(row, "rephrase_prompt", where, required=False)
    return Record(
        prompt=_text(row, "prompt", where),
        target=_text(row, "target_new", where),
        rephrases=(rephrase,) if rephrase else (),
        locality=locality,
        subject=_text(row, "subject", where, required=False),
    )


def _from_zsre(row: Mapping[str, Any], where: str) -> Record:
    """Fields src, alt, rephrase, loc, loc_ans, subject (zsre_mend_{train,eval}.json)."""
    locality: tuple[Locality, ...] = ()
    if row.get("loc"):
        locality = (Locality(_text(row, "loc", where), _text(row, "loc_ans", where)),)
    rephrase = _text(row, "rephrase", where, required=False)
    return Record(
        prompt=_text(row, "src", where),
        target=_text(row, "alt", where),
        rephrases=(rephrase,) if rephrase else (),
        locality=locality,
        subject=_text(row, "subject", where, required=False),
    )


def _text(row: Mapping[str, Any], field: str, where: str, required: bool = True) -> str:
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
