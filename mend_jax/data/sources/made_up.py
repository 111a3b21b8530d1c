"""Relations of which no truth is known: what may be asked of things of many kinds, and what an edit
may say.

An edit says what is not true, so that a record needs no truth to be trained on. `made_up.json` has
kinds of subjects, each a list, or the name of a relation of the facts whose subjects these are; and
relations of a kind, with phrasings and possible objects.
"""

import json
import random
from functools import cache
from importlib import resources
from typing import Any

from mend_jax.data.sources.facts import Relation, part_of, relations

SUBJECTS = 14
"""Of a relation, drawn from those of its kind."""


@cache
def _file() -> Any:
    file = resources.files("mend_jax.data.sources").joinpath("made_up.json")
    return json.loads(file.read_text(encoding="utf-8"))


def made_up_relations(seed: int = 0) -> tuple[Relation, ...]:
    """All of them, each with an object drawn for each of some subjects, none of which is held out
    or a bystander among the facts."""
    rng = random.Random(f"made up {seed}")
    of_facts = {whole.name: [subject for subject, _ in whole.facts] for whole in relations()}
    others = {s for subjects in of_facts.values() for s in subjects if part_of(s) != "train"}

    def one(name: str, relation: Any) -> Relation:
        given = _file()["kinds"][relation["kind"]]
        named = of_facts[given] if isinstance(given, str) else given
        subjects = [subject for subject in named if subject not in others]
        chosen = rng.sample(subjects, min(SUBJECTS, len(subjects)))
        facts = tuple((subject, rng.choice(relation["objects"])) for subject in chosen)
        return Relation(name, tuple(relation["phrasings"]), (), facts)

    return tuple(one(*item) for item in _file()["relations"].items())
