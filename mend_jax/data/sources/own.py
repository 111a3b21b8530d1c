"""Records of one's own, as JSON objects of the schema in `data.records`."""

from collections.abc import Iterable

from mend_jax.data.records import Locality, Rephrase, parse_record
from mend_jax.data.sources.base import Read, Reading, Row, Source


def read_own(rows: Iterable[Row], reading: Reading) -> Read:
    """Every row is a record; it leaves nothing open."""
    return Read([parse_record(row.value, row.where) for row in rows], [])


SOURCE = Source(
    "a record of one's own",
    ("prompt", "target"),
    read_own,
    optional=("rephrases", "locality", "subject", "separator", "prompt", "messages"),
    inner=(
        ("rephrases", (*Rephrase._fields, "messages")),
        ("locality", (*Locality._fields, "messages")),
        ("messages", ("role", "content")),
    ),
    as_written=True,
)
CHAT = SOURCE._replace(name="a chat of one's own", fields=("messages", "target"))
