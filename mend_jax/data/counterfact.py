"""CounterFact (Meng et al. 2022), with one rephrase and one locality prompt a row.

    {"prompt", "target_new", "subject", "rephrase_prompt", "locality_prompt",
     "locality_ground_truth"}
"""

from collections.abc import Iterable

from mend_jax.data.reading import Read, Reading, Row
from mend_jax.data.records import Locality, Record, text_of

FIELDS = ("prompt", "target_new")


def read_edits(rows: Iterable[Row], reading: Reading) -> Read:
    """Every row is a record; it leaves nothing open."""
    return Read([_record(row) for row in rows], [])


def _record(row: Row) -> Record:
    value, where = row.value, row.where
    locality: tuple[Locality, ...] = ()
    if value.get("locality_prompt"):
        prompt = text_of(value, "locality_prompt", where)
        locality = (Locality(prompt, text_of(value, "locality_ground_truth", where)),)
    rephrase = text_of(value, "rephrase_prompt", where, required=False)
    return Record(
        prompt=text_of(value, "prompt", where),
        target=text_of(value, "target_new", where),
        rephrases=(rephrase,) if rephrase else (),
        locality=locality,
        subject=text_of(value, "subject", where, required=False),
    )
