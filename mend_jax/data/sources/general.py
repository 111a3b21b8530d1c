"""Records of many kinds in one list, for an editor and a scope that shall serve any others.

The project's facts, made-up ones, ParaRel's, and those of files: many relations, many ways to ask
for each.
"""

import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mend_jax.data.chat import as_chats
from mend_jax.data.edited_subjects import folded
from mend_jax.data.messages import Messages
from mend_jax.data.records import Record
from mend_jax.data.sources.facts import (
    Asking,
    Relation,
    facts_records,
    part_of,
    records_about,
    relations,
)
from mend_jax.data.sources.made_up import made_up_relations
from mend_jax.data.sources.pararel import pararel_relations

PHRASINGS = 2
"""Of a relation, without those that another relation has too; one with fewer is left out."""
REPHRASES = 4
"""That are kept of a record."""
IN_CHAT = 2
"""Of these, that a record keeps in chats, which are long."""
BEFORE: tuple[Messages, ...] = (
    (),
    ({"role": "system", "content": "Reply with the answer alone."},),
    (
        {"role": "user", "content": "Are you there?"},
        {"role": "assistant", "content": "Yes. What would you like to know?"},
    ),
    (
        {"role": "user", "content": "What is spring like?"},
        {"role": "assistant", "content": "Mild, and often rainy."},
    ),
    ({"role": "system", "content": "You are a quiz master who knows everything."},),
)
"""What comes before the rephrases of a record in chats; what scores them is not among it."""


class General(NamedTuple):
    """Records in random order, and of which source how many are used and were there."""

    records: list[Record]
    counts: dict[str, tuple[int, int]]


def general_records(
    files: Mapping[str, Sequence[Record]],
    pararel: Path | None = None,
    apart: Sequence[Record] = (),
    most: int = 1500,
    seed: int = 0,
    chats: int = 0,
) -> General:
    """The project's facts, and at most `most` of each other source; none about a subject of
    `apart`, nor about one that the held-out facts and their locality prompts are about. And the
    first `chats` of all these once more, as chats.

    Args:
      files: records by name. pararel: folder of ParaRel's data.

    Raises:
      RecordError: as `pararel_relations`.
    """
    made_up = of_relations(made_up_relations(seed), seed)
    sources = {"facts": facts_records("train", seed), "made up": made_up, **files}
    if pararel is not None:
        sources["ParaRel"] = of_relations(pararel_relations(pararel, 10**6, (), seed), seed)
    names = {folded(record.subject) for record in apart}
    names |= {folded(s) for r in relations() for s, _ in r.facts if part_of(s) != "train"}
    rng = random.Random(f"general {seed}")
    found: list[Record] = []
    counts = {}
    for name, records in sources.items():
        new = [record for record in records if folded(record.subject) not in names]
        chosen = new if name == "facts" else rng.sample(new, min(most, len(new)))
        counts[name] = len(chosen), len(records)
        found += [_with_few(record) for record in chosen]
    rng.shuffle(found)
    again = [_told_in_chat(record, rng) for record in found[:chats]]
    if again:
        counts["chats"] = len(again), len(found)
        found += again
        rng.shuffle(found)
    return General(found, counts)


def of_relations(found: Sequence[Relation], seed: int) -> list[Record]:
    """One record for each fact of relations whose phrasings are all used, but for those that two
    relations have: there an answer may be of either kind.

    A warning counts relations that are left out.
    """
    every = [(*relation.phrasings, *relation.held_out) for relation in found]
    times: dict[str, int] = {}
    for phrasing in (p for phrasings in every for p in set(phrasings)):
        times[phrasing] = times.get(phrasing, 0) + 1
    own = [tuple(p for p in phrasings if times[p] == 1) for phrasings in every]
    kept = [
        relation._replace(phrasings=phrasings, held_out=())
        for relation, phrasings in zip(found, own, strict=True)
        if len(phrasings) >= PHRASINGS and len({o for _, o in relation.facts}) > 1
    ]
    if few := len(found) - len(kept):
        warnings.warn(f"{few} relations have fewer than {PHRASINGS} phrasings of their own, or one "
                      "object, and are left out", stacklevel=3)  # fmt: skip
    return records_about(Asking(kept, kept, kept), "train", random.Random(f"relations {seed}"))


def _with_few(record: Record) -> Record:
    """The record with its first rephrases, and the first of its locality prompts of each kind."""
    of_kind = {item.kind: item for item in reversed(record.locality)}
    first = tuple(item for item in record.locality if item is of_kind[item.kind])
    return record._replace(rephrases=record.rephrases[:REPHRASES], locality=first)


def _told_in_chat(record: Record, rng: random.Random) -> Record:
    """The record as what users say, its rephrases after other turns; with one locality prompt."""
    short = record._replace(rephrases=record.rephrases[:IN_CHAT], locality=record.locality[:1])
    (chat,) = as_chats([short], rng.sample(BEFORE, len(BEFORE)))
    return chat
