"""The ends of prompts: there it is seen what they ask for, in more records at a time than there is
room for whole texts of."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
from jaxtyping import Bool, Float

from mend_jax.data.scope_texts import (
    DRAWN,
    Corpus,
    ScopeText,
    States,
    drawn,
    texts_of_record,
)

ENDS = 512
"""Records of a batch."""


class Ends(NamedTuple):
    """The last tokens of prompts, one of each role that is DRAWN, of some records.

    states: float[roles, records, 1, kept, d]. there: whether the record has a text of this role.
    """

    states: Float[np.ndarray, "roles records 1 kept d"]
    there: Bool[np.ndarray, "roles records"]


def ends_batches(corpus: Corpus, seed: int) -> Iterator[Ends]:
    """Endless: the last tokens of prompts alone, of other records each time."""
    known = [texts_of_record(record) for record in corpus.records]
    rng, last = np.random.default_rng((seed, 6)), remembered(corpus.states)
    while True:
        chosen = rng.permutation(len(known))[:ENDS]
        yield ends_of([drawn(known[i], rng) for i in chosen], last)


Last: TypeAlias = Callable[[ScopeText], Float[np.ndarray, "kept d"]]
"""The states of a prompt's last token."""


def remembered(states: States) -> Last:
    """Of each text looked up once, since it is a row of many, and asked for often; kept in half the
    room."""
    known: dict[bytes, Float[np.ndarray, "kept d"]] = {}

    def last(text: ScopeText) -> Float[np.ndarray, "kept d"]:
        key = text.tokens[: text.at + 1].tobytes()
        if key not in known:
            known[key] = states(text.tokens)[text.at].astype(ml_dtypes.bfloat16)
        return known[key]

    return last


def ends_of(records: Sequence[list[ScopeText]], last: Last) -> Ends:
    """Of texts as `drawn`; of a role with several, the first."""
    known = last(records[0][0])
    found = np.zeros((len(DRAWN), len(records), 1, *known.shape), np.float32)
    there = np.zeros(found.shape[:2], bool)
    for place, texts in enumerate(records):
        for text in reversed(texts):
            role = list(DRAWN).index(text.role)
            found[role, place, 0] = last(text)
            there[role, place] = True
    return Ends(found, there)
