"""Edits that are held beside those that are scored, and are not scored."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mend_jax.data.encoding import Tokens
from mend_jax.data.records import Record, drop_known_subjects
from mend_jax.data.token_records import TokenRecord, encode_records


class Beside(NamedTuple):
    """The records, and what is told of them."""

    records: list[TokenRecord]
    told: dict[str, Any]


NOTHING = Beside([], {})


def held_beside(
    file: str,
    wanted: int,
    records: Sequence[Record],
    seen: Sequence[Record] | None,
    encode: Callable[..., Tokens],
    limits: tuple[int, int],
) -> Beside:
    """So many records whose edits are held beside every group, those about new subjects first.

    Args:
      file: where they are from, for messages.
      records: about none of the subjects that are scored.
      seen: what the editor was trained on; None: not known.
      encode, limits: as `encode_records` takes them.

    Raises:
      ValueError: there are too few.
    """
    new = records if seen is None else drop_known_subjects(records, seen)[0]
    old = drop_known_subjects(records, new)[0]
    bare = [record._replace(rephrases=(), locality=()) for record in (*new, *old)]
    encoded, skipped = encode_records(bare, encode, *limits)
    if len(encoded) < wanted:
        raise ValueError(
            f"{file}: {wanted} edits are wanted beside, and {len(encoded)} records can be used"
        )
    chosen = encoded[:wanted]
    fresh = drop_known_subjects([entry.record for entry in chosen], old)[0]
    return Beside(
        chosen,
        {
            "of subjects trained on": None if seen is None else len(chosen) - len(fresh),
            "left out": skipped.too_long._asdict() | skipped.in_words(),
        },
    )
