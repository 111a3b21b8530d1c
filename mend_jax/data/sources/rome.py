"""CounterFact in the file of its authors (Meng et al. 2022, `counterfact.json` of ROME).

    {"case_id", "requested_rewrite": {"prompt": "... {} ...", "subject", "target_new": {"str"},
     "target_true": {"str"}}, "paraphrase_prompts": [...], "neighborhood_prompts": [...],
     "attribute_prompts": [...], "generation_prompts": [...]}

Neighbours are other subjects with the same true answer: what must stay. Attribute prompts (subjects
of which the new answer is true) and generation prompts (beginnings without an answer) have no place
in a record.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mend_jax.data.fields import RecordError, text_of, texts_of
from mend_jax.data.records import Locality, Record, filled_in
from mend_jax.data.sources.base import Read, Reading, Row, Source, counted

LISTS = ("paraphrase_prompts", "neighborhood_prompts", "attribute_prompts", "generation_prompts")


def read_edits(rows: Iterable[Row], reading: Reading) -> Read:
    """Every row is a record; it leaves nothing open."""
    records, attributes, generations = [], 0, 0
    for row in rows:
        again, near, attribute, generation = (
            texts_of(row.value, field, row.where, required=False) for field in LISTS
        )
        records.append(_record(row, again, near))
        attributes += len(attribute)
        generations += len(generation)
    why = "have no place in a record, and are not read"
    return Read(
        records,
        counted(
            (attributes, f"attribute prompts {why}"), (generations, f"generation prompts {why}")
        ),
    )


def _record(row: Row, again: tuple[str, ...], near: tuple[str, ...]) -> Record:
    where = f"{row.where}: requested_rewrite"
    rewrite = _object(row.value, "requested_rewrite", row.where)
    target = text_of(_object(rewrite, "target_new", where), "str", f"{where}.target_new")
    true = ""
    if near:
        true = text_of(_object(rewrite, "target_true", where), "str", f"{where}.target_true")
    record = Record(
        prompt=text_of(rewrite, "prompt", where),
        target=target,
        rephrases=again,
        locality=tuple(Locality(prompt, true, "near") for prompt in near),
        subject=text_of(rewrite, "subject", where),
    )
    return filled_in(record, row.where)


def _object(row: Mapping[str, Any], field: str, where: str) -> Mapping[str, Any]:
    value = row.get(field)
    if not isinstance(value, Mapping):
        raise RecordError(f"{where}: {field!r} must be an object, found {type(value).__name__}")
    return value


SOURCE = Source(
    "CounterFact, ROME's file",
    ("requested_rewrite",),
    read_edits,
    optional=LISTS,
    unread=("case_id", "pararel_idx"),
    inner=(
        ("requested_rewrite", ("prompt", "subject", "target_new", "target_true", "relation_id")),
    ),
    as_written=True,
)
