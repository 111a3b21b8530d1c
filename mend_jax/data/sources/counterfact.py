"""CounterFact (Meng et al. 2022), with one rephrase and one locality prompt a row.

    {"prompt", "target_new", "subject", "rephrase_prompt", "locality_prompt",
     "locality_ground_truth"}

EasyEdit's rows: those of KnowEdit have the first three fields too, and are read with theirs
(`knowedit`). ROME's own file is read in `rome`.
"""

from collections.abc import Iterable

from mend_jax.data.sources import knowedit
from mend_jax.data.sources.base import FieldNames, Read, Reading, Row, Source

NAMES = FieldNames(
    "prompt", "target_new", "rephrase_prompt", "locality_prompt", "locality_ground_truth"
)


def read_edits(rows: Iterable[Row], reading: Reading) -> Read:
    """Every row is a record; it leaves nothing open."""
    return knowedit.read_rows(NAMES, rows)


SOURCE = Source(
    "CounterFact",
    ("prompt", "target_new"),
    read_edits,
    optional=(*NAMES, *knowedit.FURTHER),
    unread=("case_id", "ground_truth", "cond", "pred", "target_true", "relation_id"),
    as_written=True,
)
