"""Everyday words of English, and forms of them that are hardly words."""

import random
from collections.abc import Sequence
from importlib import resources


def common_words() -> tuple[str, ...]:
    """Everyday words of English: no base should take one that it never saw for a name."""
    text = resources.files("mend_jax.data.sources").joinpath("common_words.txt")
    return tuple(text.read_text(encoding="utf-8").split())


ENDINGS = ("", "s", "ed", "ing")
"""Of a common word, so that its forms are no news either."""


def noise(rng: random.Random, words: Sequence[str]) -> str:
    """A form of a common word, or a word that is none, of the halves of two."""
    first, second = rng.choice(words), rng.choice(words)
    if rng.random() < 0.5:
        return first + rng.choice(ENDINGS)
    return first[: (len(first) + 1) // 2] + second[len(second) // 2 :]
