"""Records as tokens, with what is left out in some: rephrases, locality, kinds of it."""

from functools import partial

import numpy as np
from words import WORDS, words

from mend_jax.data.encoding import Tokens, encode_pair
from mend_jax.data.records import Locality, Record
from mend_jax.data.token_records import TokenRecord, encode_records

ENCODE = partial(encode_pair, words())


def some_records(n: int = 7) -> list[TokenRecord]:
    """Records of different lengths; the last without rephrases or locality."""
    rng = np.random.default_rng(3)

    def text(most: int) -> str:
        return " ".join(rng.choice(WORDS, rng.integers(1, most + 1)))

    records = [
        Record(
            text(9),
            text(3),
            tuple(text(6) for _ in range(i % 4)),
            tuple(
                Locality(text(11), text(2), kind)
                for kind in ("near", "far", "", "far")[: 1 + i % 4]
            ),
        )
        for i in range(n - 1)
    ]
    return encode_records([*records, Record(text(4), text(3))], ENCODE)[0]


def every_pair(records: list[TokenRecord]) -> list[Tokens]:
    return [pair for r in records for pair in (*r.outer, *r.locality)]
