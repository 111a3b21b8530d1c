"""Pronunciations as edits, for a model that spells words as sounds.

The dictionary (us_gold.json of the package misaki, Apache-2.0) is written in the alphabet of such
models. An edit corrects a word that the model gets wrong; its other forms must be corrected with
it, words that the model gets right must stay. The forms are those of the dictionary, and the
regular one in -s, which it does not list.

Of a model that disagrees with the dictionary on common words nobody can say where it is wrong:
there an edit gives a word the sounds that the model has for a similar word.
"""

import json
import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from mend_jax.data.codec import codec_of
from mend_jax.data.decoding import answers
from mend_jax.data.records import Locality, Record, Rephrase
from mend_jax.data.sources.common_words import common_words
from mend_jax.data.sources.facts import LOCALITY, REPHRASES, in_split
from mend_jax.models.registry import Base
from mend_jax.weights.fetch import Member, Pinned, fetch_pinned

DICTIONARY = Pinned(
    "misaki==0.9.4",
    (
        Member(
            "misaki/data/us_gold.json",
            "dc414872a49a28ae6c141463d502fd945f3b2fde040484fdc47d00cc4612686f",
            3_000_469,
        ),
    ),
)
LONGEST = 32
"""Most tokens of a pronunciation."""
LEAST_AGREEMENT = 0.7
"""Share of common words that model and dictionary pronounce alike; with less, their disagreement is
no error of the model."""
PREFIXES = ("anti", "dis", "in", "inter", "mis", "non", "out", "over", "pre", "re", "sub", "un")
NO_PLURAL = ("able", "ed", "est", "ful", "ible", "ic", "ing", "ish", "ly", "s")

Dictionary = dict[str, tuple[str, ...]]
"""Word -> its pronunciations, the usual one first."""


def read_dictionary() -> Dictionary:
    """The words of three letters and more that are written in small letters."""
    text = fetch_pinned("us_gold.json", DICTIONARY).read_text(encoding="utf-8")
    found = {}
    for word, sounds in json.loads(text).items():
        every = (sounds,) if isinstance(sounds, str) else (sounds["DEFAULT"], *sounds.values())
        if len(word) > 2 and word.isascii() and word.isalpha() and word.islower() and every[0]:
            found[word] = tuple(dict.fromkeys(filter(None, every)))
    return found


def family(word: str, words: Collection[str]) -> str:
    """What all forms of a word have in common: the first three letters, after any prefix."""
    for prefix in PREFIXES:
        if word.startswith(prefix) and word.removeprefix(prefix) in words:
            return family(word.removeprefix(prefix), words)
    return word[:3]


def stems(word: str, words: Collection[str]) -> list[str]:
    """The words of four letters and more that it begins with, also after a prefix."""
    rests = [word, *(word.removeprefix(p) for p in PREFIXES if word.startswith(p))]
    begun = {rest[:n] for rest in rests for n in range(4, len(rest) + 1)}
    return sorted({stem for begin in begun for stem in (begin, begin + "e") if stem in words})


def plural(word: str, sounds: str) -> Rephrase | None:
    """The regular form in -s, of a noun or a verb; None for what looks like neither."""
    if word.endswith(NO_PLURAL):
        return None
    hisses = sounds[-1] in "szʃʒʧʤ"
    ending = "ᵻz" if hisses else "s" if sounds[-1] in "ptkfθ" else "z"
    if word[-1] == "y" and word[-2] not in "aeiou":
        return Rephrase(word[:-1] + "ies", sounds + ending)
    return Rephrase(word + ("es" if hisses and word[-1] != "e" else "s"), sounds + ending)


def forms(word: str, relatives: Sequence[str], dictionary: Dictionary) -> list[Rephrase]:
    """Inflected, derived and compounded forms that begin with the word, in letters and sounds."""
    stem, sounds = word.removesuffix("e"), dictionary[word][0]
    found = [
        Rephrase(other, dictionary[other][0])
        for other in relatives
        if other != word and other.startswith(stem) and dictionary[other][0].startswith(sounds)
    ]
    regular = plural(word, sounds)
    return found + [regular] if regular and regular.prompt not in dictionary else found


def pronounce(base: Base, words: Sequence[str]) -> dict[str, str]:
    """What the base takes the words to sound like."""
    codec = codec_of(base)
    said = answers(base, [codec.prompt(word) for word in words], LONGEST, batch=256)
    return {words[i]: codec.text(sounds) for i, sounds in said}


def agreement(base: Base) -> float:
    """Share of the common words that the base pronounces as the dictionary does."""
    dictionary = read_dictionary()
    said = pronounce(base, [word for word in common_words() if word in dictionary])
    return sum(sounds in dictionary[word] for word, sounds in said.items()) / len(said)


class Known(NamedTuple):
    """The words of one split, and how the base pronounces those that it was asked.

    families: words by the name of their family, in the order in which they were dealt. home: the
    family of each word that has no stem in the other split. right: words that need no edit.
    similar: of these, by their last three letters.
    """

    dictionary: Dictionary
    families: Mapping[str, list[str]]
    home: dict[str, str]
    said: dict[str, str]
    right: list[str]
    similar: Mapping[str, list[str]]


def pronunciation_records(
    base: Base,
    split: Literal["train", "validation"],
    seed: int = 0,
    asked: int = 20_000,
    correct: bool = True,
) -> list[Record]:
    """One edit per word that the base gets wrong, towards the dictionary, in random order.

    Args:
      base: an encoder-decoder from letters to sounds.
      split: families of words are dealt to the splits by a hash; a word that has a stem in the
        other split is in none.
      seed: draws families, forms, neighbours and the order.
      asked: of so many words at most the base is asked how they are pronounced.
      correct: False edits any word, towards what the base says of another one with the same last
        three letters; no form of it is known then.

    Returns:
      Records whose rephrases are forms of the word with pronunciations of their own; near locality
      is words with the same last three letters, far locality any others. Words without forms are
      not corrected.
    """
    rng = random.Random(f"pronunciations {split} {seed}")
    known = _known(base, split, rng, asked, correct)
    edit = _corrected if correct else _exchanged
    records = []
    for word in known.said:
        found = edit(known, word, rng)
        if found is None:
            continue
        target, others = found
        far = rng.sample(known.right, min(4 * LOCALITY[split], len(known.right)))
        again = tuple(rng.sample(others, min(REPHRASES, len(others))))
        locality = []
        for kind, pool in (("near", known.similar[word[-3:]]), ("far", far)):
            strangers = [other for other in pool if known.home[other] != known.home[word]]
            chosen = rng.sample(strangers, min(LOCALITY[split], len(strangers)))
            locality += [Locality(other, known.said[other], kind) for other in chosen]
        records.append(Record(word, target, again, tuple(locality), word))
    rng.shuffle(records)
    return records


def _known(
    base: Base,
    split: Literal["train", "validation"],
    rng: random.Random,
    asked: int,
    correct: bool,
) -> Known:
    dictionary = read_dictionary()
    families = defaultdict(list)
    for word in dictionary:
        families[family(word, dictionary)].append(word)
    dealt = sorted(name for name in families if in_split(name, split))
    rng.shuffle(dealt)
    here = {word for name in dealt for word in families[name]}
    home = {
        word: name
        for name in dealt
        for word in families[name]
        if here.issuperset(stems(word, dictionary))
    }
    said = pronounce(base, list(home)[:asked])
    right = [word for word, sounds in said.items() if not correct or sounds in dictionary[word]]
    similar = defaultdict(list)
    for word in right:
        similar[word[-3:]].append(word)
    return Known(dictionary, families, home, said, right, similar)


def _corrected(known: Known, word: str, rng: random.Random) -> tuple[str, list[Rephrase]] | None:
    """What the dictionary has for the word and its other forms; None if the base says that, or if
    there are no forms."""
    if known.said[word] in known.dictionary[word]:
        return None
    relatives = [other for other in known.families[known.home[word]] if other in known.home]
    found = forms(word, relatives, known.dictionary)
    return (known.dictionary[word][0], found) if found else None


def _exchanged(known: Known, word: str, rng: random.Random) -> tuple[str, list[Rephrase]] | None:
    """What the base says of a similar word; None if it says the same of all."""
    others = [w for w in known.similar[word[-3:]] if known.said[w] != known.said[word]]
    return (known.said[rng.choice(others)], []) if others else None
