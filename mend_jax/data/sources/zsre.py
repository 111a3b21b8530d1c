"""zsRE (Levy et al. 2017) as questions with edits: the JSON list that was derived from MEND's data
(ROME, EasyEdit and others use it).

    {"src", "alt", "rephrase", "loc", "loc_ans", "subject"}

KnowledgeEditor's JSONL of zsRE is read in `knowledge_editor`.
"""

from collections.abc import Iterable

from mend_jax.data.fields import text_of
from mend_jax.data.sources.base import (
    FieldNames,
    Read,
    Reading,
    Row,
    Source,
    left_out,
    record_by,
)

NAMES = FieldNames("src", "alt", "rephrase", "loc", "loc_ans")


def read_edits(rows: Iterable[Row], reading: Reading) -> Read:
    """Rows with no answer to edit towards are left out."""
    records, without = [], []
    for row in rows:
        if not text_of(row.value, "alt", row.where, required="alt" not in row.value):
            without.append(row.place)
        else:
            records.append(record_by(NAMES, row, "far"))
    return Read(records, left_out(without, len(records), "have an empty 'alt'"))


SOURCE = Source(
    "zsRE, MEND's list",
    ("src", "alt"),
    read_edits,
    optional=NAMES,
    unread=("pred", "answers", "cond"),
)
