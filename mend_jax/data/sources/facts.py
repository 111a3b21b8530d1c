"""The project's own data set: true facts, many ways to put each, split by subject.

`facts.json` holds, for every relation, phrasings with one `{}` for the subject, and pairs
[subject, object]. Two phrasings are held out: no training record contains them. An edit
makes the base believe another object of the same relation; what must not move is another subject
of the relation ("near") and another relation ("far").
"""

import hashlib
import json
import random
from importlib import resources
from typing import Literal, NamedTuple

from mend_jax.data.records import Locality, Record

HELD_OUT_PHRASINGS = (4, 5)
HELD_OUT_SHARE = 0.15
REPHRASES = 7
LOCALITY = {"train": 8, "validation": 2}
"""Near locality prompts of a record, and as many far ones."""


class Relation(NamedTuple):
    """phrasings: for training. held_out: for evaluation. facts: (subject, object)."""

    name: str
    phrasings: tuple[str, ...]
    held_out: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


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
            )
        )
    return tuple(found)


def facts_records(split: Literal["train", "validation"], seed: int = 0) -> list[Record]:
    """One edit per fact, in random order.

    Args:
      split: subjects are dealt to the splits by a hash of their name, so that a subject stands in
        one split only. The prompt is a training phrasing; the rephrases are three others in
        "train", the two held-out ones in "validation".
      seed: draws edit targets, phrasings, neighbours and the order.

    Returns:
      Records with `LOCALITY` near and far locality prompts each, of the same split. Every fact is
      put in one way wherever it serves as locality, so that different records share prompts.
    """
    rng = random.Random(f"{split} {seed}")
    pool = [
        relation._replace(facts=tuple(f for f in relation.facts if in_split(f[0], split)))
        for relation in relations()
    ]
    prompts = {
        (relation.name, fact): rng.choice(relation.phrasings).format(fact[0])
        for relation in pool
        for fact in relation.facts
    }
    records = []
    for relation, whole in zip(pool, relations(), strict=True):
        objects = sorted({object_ for _, object_ in whole.facts})
        others = [r for r in pool if r.name != relation.name and r.facts]
        for subject, truth in relation.facts:
            target = rng.choice([o for o in objects if o != truth])
            asked = rng.sample(relation.phrasings, len(relation.phrasings))
            rephrases = relation.held_out if split == "validation" else asked[1 : 1 + REPHRASES]
            near = [f for f in relation.facts if f[0] != subject]
            locality = [
                Locality(prompts[relation.name, fact], fact[1], "near")
                for fact in rng.sample(near, min(LOCALITY[split], len(near)))
            ]
            for other in rng.choices(others, k=LOCALITY[split]):
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


def in_split(subject: str, split: Literal["train", "validation"]) -> bool:
    """Which split a subject belongs to, by a hash of its name."""
    digest = hashlib.sha256(f"held-out: {subject.casefold()}".encode()).digest()
    held_out = int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SHARE
    return held_out == (split == "validation")
