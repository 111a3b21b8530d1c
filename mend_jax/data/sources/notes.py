"""What is said of a file beside its records: fields that are not read, and records that are odd."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mend_jax.data.records import Record, rephrases_of
from mend_jax.data.sources.base import Row, Source, counted

NAMED = 5
"""Unknown fields that a note names."""
SHOWN = 40
"""Characters of a field's name that a note shows."""


def watched(rows: Iterable[Row], source: Source, unread: Counter[str]) -> Iterator[Row]:
    """The same rows; fields that the source does not know are counted as they pass."""
    known = {*source.fields, *source.optional, *source.unread}
    for row in rows:
        unread.update(field[:SHOWN] for field in row.value if field not in known)
        for field, names in source.inner:
            value = row.value.get(field)
            items = value if isinstance(value, list) else [value]
            for item in items:
                if isinstance(item, Mapping):
                    unread.update(f"{field}.{name[:SHOWN]}" for name in item if name not in names)
        yield row


def unread_fields(source: Source, unread: Counter[str]) -> list[str]:
    """The note that names them, each with the known field that is written most like it."""
    if not unread:
        return []
    inner = dict(source.inner)
    named = []
    for field, times in unread.most_common(NAMED):
        within, _, name = field.partition(".")
        known, like = (*source.fields, *source.optional), field
        if name and within in inner:
            known, like = inner[within], name
        nearest = difflib.get_close_matches(like, known, 1)
        hint = f", nearest known: {nearest[0]!r}" if nearest else ""
        named.append(f"{field!r} ({times} times{hint})")
    more = f" and {len(unread) - NAMED} more" if len(unread) > NAMED else ""
    return [f"fields of no meaning here, not read: {', '.join(named)}{more}"]


def oddities(records: Sequence[Record]) -> list[str]:
    """What is likely a mistake, and kept: prompts that say the edit again, and the same twice."""
    again = stays = 0
    for record in records:
        prompt = _plain(record.prompt)
        again += sum(
            _plain(r.prompt) == prompt and r.target == record.target for r in rephrases_of(record)
        )
        stays += sum(_plain(x.prompt) == prompt for x in record.locality)
    n = len(records)
    return counted(
        (again, f"rephrases (of {n} records) are the edit's prompt again: nothing new is asked"),
        (stays, f"locality prompts (of {n} records) are the edit's prompt: it cannot stay"),
        (n - len(set(records)), f"of {n} records are the same as an earlier one"),
        (sum(not record.rephrases for record in records), f"of {n} records have no rephrases"),
        (sum(not record.locality for record in records), f"of {n} records have no locality"),
    )


def _plain(text: str) -> str:
    return " ".join(text.split())
