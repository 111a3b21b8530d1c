"""The project's own data set: true facts, many ways to put each, split by subject.

`facts.json` holds, for every relation, phrasings with one `{}` for the subject, and pairs
[subject, object]. Two phrasings are held out: no training record contains them; and the rewordings
are for training alone, none of them like a held-out one. An edit makes the base believe another
object of the same relation; what must not move is another subject of the relation ("near"), another
relation ("far") and, in evaluation, the own subject in another relation ("own").

Some subjects are bystanders: they are never edited, nor trained on, and all near and far prompts of
the evaluation are about them. However many edits are held, none of these prompts is about an edited
subject.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple, TypeAlias

from mend_jax.data.own_subject import ASKED, Question, own_questions
from mend_jax.data.records import Locality, Record

Split: TypeAlias = Literal["train", "validation"]
Part: TypeAlias = Literal["train", "validation", "bystander"]

HELD_OUT_PHRASINGS = (4, 5)
HELD_OUT_SHARE = 0.15
BYSTANDERS = 0.06
"""Share of the subjects, all taken from the training part."""
REPHRASES = 7
LOCALITY = {"train": 8, "validation": 2}
"""Near locality prompts of a record, and as many far ones."""


class Relation(NamedTuple):
    """phrasings: for training, and of what is edited. held_out: for evaluation. facts: (subject,
    object). rewordings: more phrasings for training."""

    name: str
    phrasings: tuple[str, ...]
    held_out: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    rewordings: tuple[str, ...] = ()


@cache
def relations() -> tuple[Relation, ...]:
    """All relations of the data set."""
    file = resources.files("mend_jax.data.sources").joinpath("facts.json")
    found = []
    for name, relation in json.loads(file.read_text(encoding="utf-8"))["relations"].items():
        phrasings = tuple(relation["templates"])
        facts = tuple((subject, object_) for subject, object_ in relation["facts"])
        found.append(
            Relation(
                name,
                tuple(p for i, p in enumerate(phrasings) if i not in HELD_OUT_PHRASINGS),
                tuple(phrasings[i] for i in HELD_OUT_PHRASINGS),
                facts,
                tuple(relation["rewordings"]),
            )
        )
    return tuple(found)


def relations_for(split: Split, phrasings: int = 0) -> tuple[Relation, ...]:
    """All relations; in training with the rewordings among the phrasings, of which the first so
    many are taken (0: all)."""
    if split == "validation":
        return relations()
    return tuple(
        relation._replace(
            phrasings=(*relation.phrasings, *relation.rewordings)[: phrasings or None],
        )
        for relation in relations()
    )


def facts_records(split: Split, seed: int = 0, phrasings: int = 0) -> list[Record]:
    """One edit per fact that is not of a bystander, in random order.

    Args:
      split: subjects are dealt to the splits by a hash of their name, so that a subject stands in
        one split only. The prompt is a training phrasing; the rephrases are three others in
        "train", the two held-out ones in "validation".
      seed: draws edit targets, phrasings, neighbours and the order.
      phrasings: of each relation in training (`relations_for`).

    Returns:
      Records with `LOCALITY` near and far locality prompts each, if there are so many: of the same
      split in training, of bystanders in "validation", where two more are of the kind "own". A fact
      is put in one way wherever it serves as near or far, so that different records share prompts.
    """
    rng = random.Random(f"{split} {seed}")
    whole = relations_for(split, phrasings)
    edited = dealt(whole, split)
    pool = edited if split == "train" else dealt(whole, "bystander")
    asked = records_about(Asking(whole, edited, pool), split, rng)
    return asked if split == "train" else [_with_own(record, seed) for record in asked]


class Asking(NamedTuple):
    """Relations, three times in one order: whole; the facts that are edited; the facts that near
    and far prompts are about."""

    whole: Sequence[Relation]
    edited: Sequence[Relation]
    pool: Sequence[Relation]


def records_about(asking: Asking, split: Split, rng: random.Random) -> list[Record]:
    """One record for each fact that is edited, in random order, as `facts_records` has them."""
    pool = asking.pool
    prompts = {
        (relation.name, fact): rng.choice(relation.phrasings).format(fact[0])
        for relation in pool
        for fact in relation.facts
    }
    records = []
    for place, whole in enumerate(asking.whole):
        objects = sorted({object_ for _, object_ in whole.facts})
        others = [r for r in pool if r.name != whole.name and r.facts]
        for subject, truth in asking.edited[place].facts:
            target = rng.choice([o for o in objects if o != truth])
            asked = rng.sample(whole.phrasings, len(whole.phrasings))
            rephrases = whole.held_out if split == "validation" else asked[1 : 1 + REPHRASES]
            near = [f for f in pool[place].facts if f[0] != subject]
            locality = [
                Locality(prompts[whole.name, fact], fact[1], "near")
                for fact in rng.sample(near, min(LOCALITY[split], len(near)))
            ]
            for other in rng.choices(others, k=LOCALITY[split]) if others else ():
                fact = rng.choice([f for f in other.facts if f[0] != subject] or other.facts)
                locality.append(Locality(prompts[other.name, fact], fact[1], "far"))
            records.append(
                Record(
                    prompt=asked[0].format(subject),
                    target=target,
                    rephrases=tuple(r.format(subject) for r in rephrases),
                    locality=tuple(locality),
                    subject=subject,
                )
            )
    rng.shuffle(records)
    return records


def _with_own(record: Record, seed: int) -> Record:
    """The record with questions about its subject in other relations: those that hold of it, then
    any, with the answer of another subject."""
    rng = random.Random(f"own {seed} {record.prompt}")
    known: list[Question] = []
    others: list[Question] = []
    for relation in relations():
        if any(p.format(record.subject) == record.prompt for p in relation.phrasings):
            continue
        true = [object_ for subject, object_ in relation.facts if subject == record.subject]
        answer = (true or rng.choice(relation.facts)[1:])[0]
        question = Question(rng.choice(relation.phrasings), answer)
        (known if true else others).append(question)
    asked = own_questions(record, [*known, *rng.sample(others, ASKED)])
    return record._replace(locality=record.locality + asked)


def dealt(whole: Sequence[Relation], part: Part) -> Sequence[Relation]:
    """The relations, each with the facts whose subjects belong to this part."""
    return [
        relation._replace(facts=tuple(fact for fact in relation.facts if part_of(fact[0]) == part))
        for relation in whole
    ]


def part_of(subject: str) -> Part:
    """To which part of the facts a subject belongs, by a hash of its name."""
    share = _share(subject)
    if share < HELD_OUT_SHARE:
        return "validation"
    return "bystander" if share < HELD_OUT_SHARE + BYSTANDERS else "train"


def in_split(subject: str, split: Split) -> bool:
    """Which split a subject, or a text, belongs to, by a hash of it."""
    return (_share(subject) < HELD_OUT_SHARE) == (split == "validation")


def _share(subject: str) -> float:
    digest = hashlib.sha256(f"held-out: {subject.casefold()}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
