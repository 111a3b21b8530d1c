"""Edits from any text: towards what the base itself might have gone on with (Wikitext generation).

A passage is cut at a place uniform in [0.5, 0.8] of its words; the target is a sampled continuation
of a few tokens (temperature 1.2, repetition penalty 5.0; the paper has 10). Rephrases are the
prompt without some of its first words, up to half of them; locality is other passages, their
beginning and the words that follow it.
"""

import random
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from mend_jax.data.bucketing import LENGTHS
from mend_jax.data.codec import codec_of
from mend_jax.data.decoding import answers
from mend_jax.data.encoding import encode_prompt
from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.facts import in_split
from mend_jax.data.sources.wikitext import trimmed
from mend_jax.data.writable import UnwritableError
from mend_jax.models.generate import sampled
from mend_jax.models.registry import Base

SHORTEST, LONGEST = 20, 40
"""Words of a passage."""
UNKNOWN = "<unk>"
CUT = (0.5, 0.8)
ROUNDS = 8
"""How often a continuation is drawn anew that its tokenizer would cut otherwise."""
LOCALITY = 2
WARM = partial(sampled, temperature=1.2, penalty=5.0)


class Passage(NamedTuple):
    """Words that stand side by side in a text, and the section they are from."""

    words: tuple[str, ...]
    section: str


def passages(text: str) -> list[Passage]:
    """Runs of `SHORTEST` to `LONGEST` words, none across an empty line or an `<unk>`.

    WikiText-2 has hardly a paragraph without `<unk>`, but enough runs of words between two of them.
    """
    found = []
    for section in re.split(r"\n\s*\n", text):
        for run in section.split(UNKNOWN):
            words = run.split()
            for first in range(0, len(words), LONGEST):
                part = tuple(words[first : first + LONGEST])
                if len(part) >= SHORTEST:
                    found.append(Passage(part, section))
    return found


def cut(passage: Passage, rng: random.Random) -> tuple[str, str]:
    """The passage's beginning, and the rest of it."""
    n = len(passage.words)
    place = rng.randint(round(CUT[0] * n), int(CUT[1] * n))
    return " ".join(passage.words[:place]), " ".join(passage.words[place:])


def continuations(
    base: Base, prompts: Sequence[str], tokens: int, batch: int, seed: int
) -> Iterator[tuple[int, str]]:
    """Yields (index of a prompt, a sampled continuation); not every prompt gets one.

    The base's tokenizer gives `prompt + " " + continuation` back as the prompt's tokens and exactly
    those that were sampled; `ROUNDS` draws are made at most.
    """
    pair = codec_of(base).pair
    ids = [encode_prompt(base.tokenizer, prompt, goes_on=True) for prompt in prompts]
    waiting = [i for i, prompt in enumerate(ids) if len(prompt) + tokens <= LENGTHS[-1]]
    for attempt in range(ROUNDS):
        asked = waiting * (batch // max(1, len(waiting)) or 1)  # a few are drawn several times
        said = answers(base, [ids[i] for i in asked], tokens, batch, WARM, seed + attempt)
        for place, new in said:
            i = asked[place]
            text = base.tokenizer.decode(new).strip()
            one_line = len(text.splitlines()) == 1  # an answer is read up to the end of its line
            if i not in waiting or not one_line:
                continue
            try:
                again = pair(prompts[i], text, " ").labels.tolist()
            except UnwritableError:  # it has the token for "unknown"
                continue
            if again == new:
                waiting.remove(i)
                yield i, text


def continuation_records(
    base: Base,
    text: str,
    edits: int,
    tokens: int = 10,
    batch: int = 32,
    seed: int = 0,
) -> tuple[dict[str, list[Record]], int]:
    """At most `edits` edits of random passages, by split, and how many passages gave none.

    Args:
      base: a causal language model.
      tokens: length of a target, in tokens of the base; locality answers have as many words at
        most.
      batch: prompts that are gone on with side by side.

    Returns:
      ({"train": records, "validation": records}, passages without a usable continuation). All
      passages of a section are in one split, those that serve as locality too; locality is from
      other sections than the edit.

    Raises:
      ValueError: the base does not go on with texts, or the text holds no passage, or only
        sections of one split; edits, tokens or batch below 1.
    """
    if base.model.kind != "causal":
        raise ValueError(f"{base.name!r} is a {base.model.kind!r} model: it continues no texts")
    rng = random.Random(f"continuations {seed}")
    pool = passages(text)
    if not pool:
        raise ValueError(f"the text holds no {SHORTEST} words in a row without {UNKNOWN}")
    rng.shuffle(pool)
    if min(edits, tokens, batch) < 1:
        raise ValueError("edits, tokens and batch must be at least 1")
    parts = {
        split: [passage for passage in pool if in_split(passage.section, split)]
        for split in ("train", "validation")
    }
    if empty := [split for split, part in parts.items() if not part]:
        raise ValueError(f"the text has too few sections: none is for {' or '.join(empty)}")
    chosen = pool[:edits]
    prompts = [cut(passage, rng)[0] for passage in chosen]
    targets = dict(continuations(base, prompts, tokens, batch, seed))
    dealt: dict[str, list[Record]] = {split: [] for split in parts}
    for i, target in sorted(targets.items()):
        section = chosen[i].section
        split = "train" if in_split(section, "train") else "validation"
        drawn = rng.sample(parts[split], min(8 * LOCALITY, len(parts[split])))
        elsewhere = [cut(other, rng) for other in drawn if other.section != section][:LOCALITY]
        locality = [
            Locality(begin, " ".join(rest.split()[:tokens]), "far", " ")
            for begin, rest in elsewhere
        ]
        again = trimmed(rng, prompts[i])
        dealt[split].append(Record(prompts[i], target, again, tuple(locality), separator=" "))
    return dealt, len(chosen) - len(targets)
