"""The one record schema, as users write it: one JSON object a line (JSONL).

    {"prompt", "target", "rephrases": [...], "subject"?, "separator"?,
     "locality": [{"prompt", "answer", "kind"?, "separator"?}]}

`prompt` is the beginning of a text, `target` what the edited model shall go on with, `rephrases`
other ways to ask for it, `locality` what must stay as it was. A rephrase is a text or, where the
same edit means another answer there, {"prompt", "target"}. In the place of any "prompt" may stand
"messages", a chat of {"role", "content"} (`data.messages`). All texts are taken as they are
written; `separator` is what stands between prompt and target ("" for nothing), here and in
rephrases and locality, where the script does not tell (`data.spacing`). A `{}`, `{subject}` or
`[X]` stands for the subject. Published data sets become the same records, each in a file of its
own; `sources.registry.read_records` reads them all.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mend_jax.data.fields import RecordError, given_separator, list_of, prompt_of, text_of
from mend_jax.data.messages import Chat

KINDS = ("near", "far", "own")
"""Of locality: what is like the edit, what is not, and what else is asked of its own subject; of no
kind counts as the first."""


class Locality(NamedTuple):
    """A prompt whose answer must not move. kind: one of `KINDS`, or "" if nobody said.

    separator: as of a `Record`.
    """

    prompt: str
    answer: str
    kind: str = ""
    separator: str | None = None


class Rephrase(NamedTuple):
    """Another text that the edit reaches, and what is to follow there."""

    prompt: str
    target: str


class Record(NamedTuple):
    """One edit, as text. A rephrase that is a bare text has the record's target.

    separator: what stands between prompt (or rephrase) and target; None leaves it to
      `data.spacing`.
    """

    prompt: str
    target: str
    rephrases: tuple[str | Rephrase, ...] = ()
    locality: tuple[Locality, ...] = ()
    subject: str = ""
    separator: str | None = None


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
        **_prompt_json(record.prompt),
        "target": record.target,
        "rephrases": [_rephrase_json(r) for r in record.rephrases],
        "locality": [_locality_json(item, record.separator) for item in record.locality],
        **({"subject": record.subject} if record.subject else {}),
        **({} if record.separator is None else {"separator": record.separator}),
    }


def _prompt_json(prompt: str) -> dict[str, Any]:
    return {"messages": list(prompt.messages)} if isinstance(prompt, Chat) else {"prompt": prompt}


def _rephrase_json(item: str | Rephrase) -> Any:
    if isinstance(item, Chat):
        return _prompt_json(item)
    return item if isinstance(item, str) else _prompt_json(item.prompt) | {"target": item.target}


def _locality_json(item: Locality, separator: str | None) -> dict[str, Any]:
    same = {"kind": "", "separator": separator}
    rest = {k: v for k, v in item._asdict().items() if k not in same or v != same[k]}
    return _prompt_json(rest.pop("prompt")) | rest


def parse_record(row: Mapping[str, Any], where: str = "record") -> Record:
    """Checks one JSON object; `where` (file and line) begins the error message."""
    separator = given_separator(row, where, None)
    record = Record(
        prompt=prompt_of(row, where),
        target=text_of(row, "target", where),
        rephrases=tuple(
            _rephrase(item, f"{where}: rephrases[{i}]")
            for i, item in enumerate(list_of(row, "rephrases", where, required=False))
        ),
        locality=tuple(
            _locality(item, f"{where}: locality[{i}]", separator)
            for i, item in enumerate(list_of(row, "locality", where, required=False))
        ),
        subject=text_of(row, "subject", where, required=False),
        separator=separator,
    )
    return filled_in(record, where)


def _locality(item: Any, where: str, separator: str | None) -> Locality:
    if not isinstance(item, Mapping):
        raise RecordError(f"{where} must be an object with 'prompt' and 'answer'")
    kind = text_of(item, "kind", where, required=False)
    if kind not in (*KINDS, ""):
        known = ", ".join(map(repr, KINDS[:-1])) + f" or {KINDS[-1]!r}"
        raise RecordError(f"{where}: 'kind' must be {known}, found {kind!r}")
    prompt, answer = prompt_of(item, where), text_of(item, "answer", where)
    return Locality(prompt, answer, kind, given_separator(item, where, separator))


def _rephrase(item: Any, where: str) -> str | Rephrase:
    if isinstance(item, Mapping):
        prompt = prompt_of(item, where)
        if isinstance(prompt, Chat) and "target" not in item:
            return prompt
        return Rephrase(prompt, text_of(item, "target", where))
    if not isinstance(item, str) or not item.strip():
        raise RecordError(f"{where} must be a text that is not empty")
    return item


PLACES = ("{}", "{subject}", "[X]")
"""How a prompt says that the subject is to stand there."""


def filled_in(record: Record, where: str) -> Record:
    """The record with its subject wherever a prompt has a place for it.

    In a prompt that has the subject anyway, `{}` is a text like others (a program's, say).

    Raises:
      RecordError: a place, and no subject.
    """

    def fill(prompt: str) -> str:
        places = [place for place in PLACES if place in prompt]
        if not places:
            return prompt
        subject = record.subject.strip()
        if not subject:
            raise RecordError(
                f"{where}: {prompt!r} has {places[0]} in the subject's place, and the record no "
                "'subject': give it, or write the prompt out (it stays as it is beside a subject "
                "that the prompt has already)"
            )
        if subject in prompt:
            return prompt
        for place in places:
            prompt = prompt.replace(place, subject)
        return prompt

    return record._replace(
        prompt=fill(record.prompt),
        rephrases=tuple(
            fill(r) if isinstance(r, str) else r._replace(prompt=fill(r.prompt))
            for r in record.rephrases
        ),
        locality=tuple(x._replace(prompt=fill(x.prompt)) for x in record.locality),
    )


def drop_known_subjects(
    records: Sequence[Record], known: Iterable[Record]
) -> tuple[list[Record], int]:
    """Records whose subject (or prompt, without one) is not among the known; and how many were."""
    subjects = {_identity(record) for record in known}
    kept = [record for record in records if _identity(record) not in subjects]
    return kept, len(records) - len(kept)


def of_some_subjects(records: Sequence[Record], share: float) -> list[Record]:
    """The records of about this share of all subjects, which are chosen by their names alone: the
    others of a file are about subjects that none of these is about."""
    import xxhash

    def place(record: Record) -> float:
        return xxhash.xxh64_intdigest(_identity(record).encode()) / 2**64

    return [record for record in records if place(record) < share]


def _identity(record: Record) -> str:
    """Whom it is about."""
    return (record.subject or record.prompt).strip().casefold()
