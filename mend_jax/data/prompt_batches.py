"""The batches that a scope's question of the relation is trained on first: prompts alone."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mend_jax.data.bucketing import LONG, SHORT
from mend_jax.data.scope_batches import DRAWN, by_length, drawn
from mend_jax.data.scope_texts import Corpus, ScopeText, States, texts_of_record

PROMPTS = 128
"""Records of a batch of prompts alone."""
WINDOW = 16
"""Tokens before the end of a prompt that are looked at there, where it is not long."""


class Prompts(NamedTuple):
    """Prompts, one of each role that is DRAWN, of some records: their last tokens, padded before.

    states: float[roles, records, length, kept, d]. mask: which of them are no padding. there:
      whether the record has a text of this role.
    """

    states: Float[np.ndarray, "roles records length kept d"]
    mask: Bool[np.ndarray, "roles records length"]
    there: Bool[np.ndarray, "roles records"]


def prompt_batches(
    corpus: Corpus, seed: int, longest: int = 32, short: int = SHORT
) -> Iterator[Prompts]:
    """Endless: prompts alone, of other records each time, and of as many tokens as a window has.
    One batch in five is of half as many records that have long ones, as of `scope_batches`."""
    known = [texts_of_record(record) for record in corpus.records]
    near, far, long = by_length(known, short)
    rng = np.random.default_rng((seed, 6))
    size = min(PROMPTS, len(known))
    while True:
        if far and rng.random() < LONG:
            chosen = rng.permutation(far)[: max(size // 2, 1)]
            yield _padded([drawn(long[i], rng) for i in chosen], corpus.states, longest)
        else:
            chosen = rng.permutation(len(known))[:size]
            yield _padded([drawn(near[i], rng) for i in chosen], corpus.states, WINDOW)


def _padded(records: Sequence[list[ScopeText]], states: States, length: int) -> Prompts:
    """Of texts as `drawn`; of a role with several, the first."""
    one = states(records[0][0].tokens)
    shape = len(DRAWN), len(records)
    found = np.zeros((*shape, length, *one.shape[1:]), one.dtype)
    mask = np.zeros((*shape, length), bool)
    for place, texts in enumerate(records):
        for text in reversed(texts):
            role = list(DRAWN).index(text.role)
            last = states(text.tokens)[max(text.at + 1 - length, 0) : text.at + 1]
            mask[role, place] = np.arange(length) >= length - len(last)
            found[role, place, length - len(last) :] = last
    return Prompts(found, mask, mask[..., -1])
