"""CounterFact (Meng et al. 2022), with one rephrase and one locality prompt a row.

    {"prompt", "target_new", "subject", "rephrase_prompt", "locality_prompt",
     "locality_ground_truth"}
"""

from collections.abc import Iterable

from mend_jax.data.sources.base import FieldNames, Read, Reading, Row, Source, record_by

NAMES = FieldNames(
    "prompt", "target_new", "rephrase_prompt", "locality_prompt", "locality_ground_truth"
)


def read_edits(rows: Iterable[Row], reading: Reading) -> Read:
    """Every row is a record; it leaves nothing open."""
    return Read([record_by(NAMES, row, "near") for row in rows], [])


SOURCE = Source("CounterFact", ("prompt", "target_new"), read_edits)
