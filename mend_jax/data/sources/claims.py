"""The project's facts as claims to verify, in the manner of FEVER (Thorne et al. 2018).

A claim is a phrasing with an object in its place: the true one (SUPPORTS) or another of the same
relation (REFUTES). An edit flips the verdict on one claim; the same claim in other words must flip
with it, claims about other subjects must not.
"""

import random

from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.facts import Relation, Split, in_split, relations_for

VERDICTS = ("REFUTES", "SUPPORTS")
REPHRASES = 7
NEIGHBOURS = {"train": 8, "validation": 2}


def claim(phrasing: str, subject: str, object_: str) -> str:
    """The phrasing as a whole sentence."""
    return f"{phrasing.format(subject)} {object_}."


def draw_claim(
    rng: random.Random, relation: Relation, fact: tuple[str, str], objects: list[str]
) -> tuple[str, str]:
    """(object, verdict): the truth or, as likely, another of the objects, if there is one."""
    true = {o for s, o in relation.facts if s == fact[0]}
    false = [o for o in objects if o not in true]
    if rng.random() < 0.5 or not false:
        return fact[1], VERDICTS[1]
    return rng.choice(false), VERDICTS[0]


def claim_records(split: Split, seed: int = 0, phrasings: int = 0) -> list[Record]:
    """One edit per fact that flips the verdict on a claim about it, in random order.

    Splits, phrasings and neighbours are dealt as in `facts_records`.
    """
    rng = random.Random(f"claims {split} {seed}")
    records = []
    pool = [
        (whole, whole._replace(facts=tuple(f for f in whole.facts if in_split(f[0], split))))
        for whole in relations_for(split, phrasings)
    ]
    objects = {whole.name: sorted({o for _, o in whole.facts}) for whole, _ in pool}

    def neighbour(part: Relation, whole: Relation, but: str, kind: str) -> Locality:
        fact = rng.choice([f for f in part.facts if f[0] != but] or part.facts)
        object_, verdict = draw_claim(rng, whole, fact, objects[whole.name])
        return Locality(claim(rng.choice(whole.phrasings), fact[0], object_), verdict, kind)

    for whole, part in pool:
        others = [pair for pair in pool if pair[0].name != whole.name and pair[1].facts]
        for fact in part.facts:
            object_, verdict = draw_claim(rng, whole, fact, objects[whole.name])
            asked = rng.sample(whole.phrasings, len(whole.phrasings))
            again = whole.held_out if split == "validation" else asked[1 : 1 + REPHRASES]
            near = [neighbour(part, whole, fact[0], "near") for _ in range(NEIGHBOURS[split])]
            far = [
                neighbour(other, its_whole, fact[0], "far")
                for its_whole, other in rng.choices(others, k=NEIGHBOURS[split])
            ]
            records.append(
                Record(
                    prompt=claim(asked[0], fact[0], object_),
                    target=VERDICTS[1 - VERDICTS.index(verdict)],
                    rephrases=tuple(claim(p, fact[0], object_) for p in again),
                    locality=(*near, *far),
                    subject=fact[0],
                )
            )
    rng.shuffle(records)
    return records
