"""What a scope reads beside the records: what the base writes itself.

Most texts ask for nothing: running text, what is said about a subject, what follows an answer.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mend_jax.data.batches import TokenRecord
from mend_jax.data.codec import codec_of
from mend_jax.data.decoding import answers
from mend_jax.data.records import Record
from mend_jax.data.scope_texts import Running
from mend_jax.models.generate import sampled
from mend_jax.models.registry import Base

PASSAGES = 384
"""Texts that the base writes itself, about some of the subjects; a quarter as many are about
anything."""
WRITTEN = 48
"""Tokens of one."""
SPOKEN, MOST = 0.25, 1536
"""Share of the edits whose answer the base goes on from, and the most; and by how many tokens."""
AFTER = 20
AT_ONCE = 128
"""Texts that are gone on from together: a step of many takes hardly longer than one of few."""


def written(
    base: Base, beginnings: Sequence[str], new: int, seed: int
) -> list[Int[np.ndarray, "_"]]:
    """What the base makes of beginnings of texts, by drawing so many new tokens: running text."""
    prompts = [codec_of(base).prompt(text) for text in beginnings]
    said = dict(answers(base, prompts, new, AT_ONCE, sampled, seed))
    return [np.asarray([*prompt, *said[i]], np.int32) for i, prompt in enumerate(prompts)]


def surroundings(base: Base, records: Sequence[Record], seed: int) -> list[Running]:
    """Running texts: passages about some of the records' subjects, and texts about anything."""
    return [*passages_of(base, records, PASSAGES, seed), *anything(base, seed)]


def passages_of(base: Base, records: Sequence[Record], count: int, seed: int) -> list[Running]:
    """What the base writes about so many of the subjects."""
    rng = np.random.default_rng((seed, 3))
    names = [record.subject or record.prompt for record in records]
    chosen = [int(i) for i in rng.permutation(len(names))[:count]]
    texts = written(base, [f"{names[i]} is" for i in chosen], WRITTEN, seed)
    return [Running(text, i) for text, i in zip(texts, chosen, strict=True)]


OPENINGS = (
    "The", "In the", "It was", "We", "When", "There is a", "How to", "This", "On the", "If you",
    "A new", "My", "She said", "According to", "For many years", "First,",
)  # fmt: skip
"""Of texts about whatever the base likes."""


def anything(base: Base, seed: int, count: int = PASSAGES // 4) -> list[Running]:
    """What the base writes about nothing that was asked for."""
    begun = [OPENINGS[i % len(OPENINGS)] for i in range(count)]
    return [Running(text) for text in written(base, begun, WRITTEN, seed)]


def spoken_of(
    base: Base, records: Sequence[TokenRecord], seed: int
) -> list[Int[np.ndarray, "_"]]:
    """Each edit's prompt with all of its answer; some of them, as the base goes on from there."""
    texts = [np.append(r.edit.tokens, r.edit.labels[-1]).astype(np.int32) for r in records]
    count = min(MOST, round(SPOKEN * len(texts)))
    chosen = np.random.default_rng((seed, 5)).permutation(len(texts))[:count]
    said = answers(base, [texts[i] for i in chosen], AFTER, AT_ONCE)
    for place, more in said:
        i = chosen[place]
        texts[i] = np.append(texts[i], np.asarray(more, np.int32))
    return texts
