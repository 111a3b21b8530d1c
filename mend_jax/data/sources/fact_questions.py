"""Questions about the facts, on which a base is trained from nothing: in many phrasings, and in
what is left of these when words are lost, exchanged and put in between.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from mend_jax.data.sources.claims import claim, draw_claim
from mend_jax.data.sources.common_words import noise
from mend_jax.data.sources.facts import Relation


class Questions(NamedTuple):
    """What is asked of a base: (prompt, answer) of a fact in a phrasing; verdicts of a classifier.

    every(rng): each fact once, in one of its phrasings. unseen(rng): each, in all held-out ones.
    lesson(rng): as `every`, but most phrasings have lost words or got wrong ones, so that what is
      learned is the subject and not the sentence.
    """

    known: tuple[Relation, ...]
    verify: bool
    words: tuple[str, ...]

    def every(self, rng: random.Random) -> list[tuple[str, str]]:
        """Each fact once, in one of the phrasings to train on."""
        return [
            self._ask(rng, relation, fact, rng.choice(relation.phrasings))
            for relation in self.known
            for fact in relation.facts
        ]

    def lesson(self, rng: random.Random) -> list[tuple[str, str]]:
        """Each fact once, in what is left of one of the phrasings to train on."""
        return [
            self._ask(
                rng, relation, fact, disturbed(rng.choice(relation.phrasings), rng, self.words)
            )
            for relation in self.known
            for fact in relation.facts
        ]

    def unseen(self, rng: random.Random) -> list[tuple[str, str]]:
        """Each fact in each of the phrasings that are held out."""
        return [
            self._ask(rng, relation, fact, phrasing)
            for relation in self.known
            for fact in relation.facts
            for phrasing in relation.held_out
        ]

    def _ask(
        self, rng: random.Random, relation: Relation, fact: tuple[str, str], phrasing: str
    ) -> tuple[str, str]:
        if not self.verify:
            return phrasing.format(fact[0]), fact[1]
        object_, verdict = draw_claim(rng, relation, fact, sorted({o for _, o in relation.facts}))
        return claim(phrasing, fact[0], object_), verdict


def disturbed(phrasing: str, rng: random.Random, words: Sequence[str]) -> str:
    """The phrasing with words gone, exchanged and put in between; the subject is never lost.

    How much of it is left varies from all to nothing but the subject.
    """
    share = rng.random()
    out: list[str] = []
    for word in phrasing.split():
        loses = "{}" not in word and rng.random() < share
        if rng.random() < share * (0.6 if loses else 0.3):
            other = noise(rng, words)
            out.append(other if out else other.capitalize())
        if not loses:
            out.append(word)
    return " ".join(out)
