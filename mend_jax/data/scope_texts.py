"""What a scope is trained on: texts, and what each of their positions is to say of which edit.

The supervision is free. Of the last token of a prompt, before anything is answered:

    edit, asked   the record's own phrasings        its subject, and its relation
    near          another subject of the relation   its relation alone
    far           another subject and relation      neither
    own           its subject in other relations    its subject alone

Nothing is asked at any other position: not earlier in a prompt, not after an answer and in what
follows it, not in running text, whoever it is about. A text that is read as a whole, by an encoder,
has one position, and it is a prompt.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from mend_jax.data.edited_subjects import Names, folded
from mend_jax.data.token_records import TokenRecord

States: TypeAlias = Callable[[Int[np.ndarray, "n"]], Float[np.ndarray, "n kept d"]]
"""Of the tokens of a text, the states that a scope reads (`TrunkCache.states`)."""

EDIT, ASKED, NEAR, FAR, OWN, WITHIN, AFTER, RUNNING, PAD = range(9)
"""Roles of positions. WITHIN: earlier in a prompt; AFTER: in its answer."""
NAMED = 4
"""Subjects at most that a text is known to be about."""


class ScopeText(NamedTuple):
    """Tokens int32[n]; at: the last token of the prompt (-1: running text); role: of that token;
    about: numbers of the corpus's subjects that the prompt is about, its record's own first."""

    tokens: Int[np.ndarray, "n"]
    at: int
    role: int
    about: tuple[int, ...] = ()


class Running(NamedTuple):
    """Running text: tokens int32[n]; record: number of that whose subject it is about, or -1."""

    tokens: Int[np.ndarray, "n"]
    record: int = -1


def texts_of_record(
    record: TokenRecord, spoken: Int[np.ndarray, "n"] | None = None
) -> list[ScopeText]:
    """All phrasings and locality prompts, each with its answer.

    Args:
      spoken: the edit's prompt with all of its answer, and what a model goes on with.
    """
    roles = {"own": OWN, "far": FAR}
    pairs = [(record.edit, EDIT), *((pair, ASKED) for pair in record.rephrases)]
    pairs += [
        (pair, roles.get(kind, NEAR))
        for pair, kind in zip(record.locality, record.kinds, strict=True)
    ]
    texts = [ScopeText(pair.tokens, int(pair.read[0]), role) for pair, role in pairs]
    return texts if spoken is None else [texts[0]._replace(tokens=spoken), *texts[1:]]


class Corpus(NamedTuple):
    """What a scope learns from.

    records: each with a rephrase. spoken: of each, its edit with what follows (`texts_of_record`).
    running: other texts. states: of all texts. whole: whether texts are read as a whole: then
    nothing is spoken of, and nothing runs.
    """

    records: Sequence[TokenRecord]
    spoken: Sequence[Int[np.ndarray, "_"] | None]
    running: Sequence[Running]
    states: States
    whole: bool = False


def subjects_of(records: Sequence[TokenRecord]) -> Int[np.ndarray, "records"]:
    """A number for each subject."""
    names = [folded(record.record.subject) for record in records]
    return np.unique(names, return_inverse=True)[1].astype(np.int32)


def known_texts(
    records: Sequence[TokenRecord], spoken: Sequence[Int[np.ndarray, "_"] | None]
) -> list[list[ScopeText]]:
    """Of each record all texts, with the numbers of its subject (`subjects_of`) and, of a locality
    prompt, of the others that it names."""
    own = [int(number) for number in subjects_of(records)]
    numbers = {folded(r.record.subject): number for r, number in zip(records, own, strict=True)}
    names = Names(numbers)

    def about(prompt: str, mine: int) -> tuple[int, ...]:
        named = {numbers[name] for name in names.within(prompt)} - {mine}
        return (mine, *sorted(named))[:NAMED]

    found = []
    for record, said, mine in zip(records, spoken, own, strict=True):
        texts = [text._replace(about=(mine,)) for text in texts_of_record(record, said)]
        for place, item in enumerate(record.record.locality, len(texts) - len(record.locality)):
            texts[place] = texts[place]._replace(about=about(item.prompt, mine))
        found.append(texts)
    return found
