"""KnowEdit (Zhang et al. 2024): edits with several rephrases, and locality in named groups.

    {"subject", "prompt", "target_new", "rephrase" or "rephrase_prompt"?,
     "locality"?: {group: [{"prompt", "ground_truth"}]}, "portability"?: {group: [...]}}

So are `wiki_counterfact`, `wiki_recent` and `ZsRE`; their first three fields are CounterFact's,
whose `SOURCE` recognises them. `WikiBio` calls these `concept`, `text` and `labels`.

A `ground_truth` is a text, a list of right answers, or a list of such lists (one answer and its
other names): the first of them is the answer. Portability asks for what follows from an edit; a
record has no place for it, since a rephrase asks for the edit itself.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mend_jax.data.fields import RecordError, text_of
from mend_jax.data.records import Locality, Record, filled_in
from mend_jax.data.sources.base import (
    FieldNames,
    Read,
    Reading,
    Row,
    Source,
    counted,
    record_by,
)

WIKIBIO = FieldNames("text", "labels", "", "", "", "concept")
FURTHER = ("rephrase", "locality", "portability")
"""Fields that KnowEdit has beside those of a row of CounterFact."""


def read_rows(names: FieldNames, rows: Iterable[Row]) -> Read:
    """Every row is a record."""
    count: Counter[str] = Counter()
    records = [_record(names, row, count) for row in rows]
    return Read(
        records,
        counted(
            (
                count["portability"],
                "portability prompts have no place in a record, and are not read",
            ),
            (count["unanswered"], "locality prompts have no answer, and are left out"),
            (count["others"], "locality prompts have other right answers too, which are not read"),
        ),
    )


def read_wikibio(rows: Iterable[Row], reading: Reading) -> Read:
    """Every row is a record; it leaves nothing open."""
    return read_rows(WIKIBIO, rows)


def _record(names: FieldNames, row: Row, count: Counter[str]) -> Record:
    record = record_by(names, row, "near")
    count["portability"] += sum(1 for _ in _grouped(row, "portability"))
    locality = []
    for item, where in _grouped(row, "locality"):
        answers = list(_texts(item.get("ground_truth"), where))
        if answers:
            locality.append(Locality(text_of(item, "prompt", where), answers[0], "near"))
        count["unanswered" if not answers else "others"] += len(answers) != 1
    record = record._replace(
        rephrases=(*record.rephrases, *_texts(row.value.get("rephrase"), f"{row.where}: rephrase")),
        locality=(*record.locality, *locality),
    )
    return filled_in(record, row.where)


def _grouped(row: Row, field: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """(item, where it stands) of all groups of a field; none, if it is absent.

    Raises:
      RecordError: not an object of lists of objects.
    """
    groups = row.value.get(field)
    if groups is None:
        return
    wanted = f"{row.where}: {field!r} must be an object of lists of objects with 'prompt' and "
    wanted += "'ground_truth'"
    if not isinstance(groups, Mapping):
        raise RecordError(f"{wanted}, found {type(groups).__name__}")
    for name, group in groups.items():
        group = [group] if isinstance(group, Mapping) else group
        if not isinstance(group, list) or not all(isinstance(item, Mapping) for item in group):
            raise RecordError(f"{wanted}; {name!r} is none")
        for i, item in enumerate(group):
            yield item, f"{row.where}: {field}.{name}[{i}]"


def _texts(value: Any, where: str) -> Iterator[str]:
    """The texts that are not blank, of a text, a list of texts, or a list of such lists.

    Raises:
      RecordError: it is anything else.
    """
    level = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(level, list):
        raise RecordError(f"{where}: expected a text or a list of texts, found {value!r:.40}")
    for item in level:
        names = item if isinstance(item, list) else [item]
        for name in names:
            if not isinstance(name, str):
                raise RecordError(f"{where}: expected texts, found {name!r:.40}")
            if name.strip():
                yield name


SOURCE = Source(
    "KnowEdit, WikiBio",
    ("labels", "concept"),
    read_wikibio,
    optional=("text", "locality"),
    as_written=True,
)
