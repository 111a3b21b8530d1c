"""What a scope is trained on: texts, and what each of their positions is to say of which edit.

The supervision is free. Of the last token of a prompt, before anything is answered:

    edit, asked   the record's own phrasings        its subject, and its relation
    near          another subject of the relation   its relation alone
    own           its subject in other relations    its subject alone

Nothing is asked at any other position: not earlier in a prompt, not after an answer, not in running
text, whoever it is about.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from mend_jax.data.batches import TokenRecord

States: TypeAlias = Callable[[Int[np.ndarray, "n"]], Float[np.ndarray, "n kept d"]]
"""Of the tokens of a text, the states that a scope reads (`TrunkCache.states`)."""

EDIT, ASKED, NEAR, OWN, WITHIN, AFTER, RUNNING, PAD = range(8)
"""Roles of positions. WITHIN: earlier in a prompt; AFTER: in its answer."""

SWAPPED = 0.3
"""How often a record is held by a rephrase, and asked by its prompt."""
RUNNING_TEXTS = 16
"""Of a batch."""


class ScopeText(NamedTuple):
    """Tokens int32[n]; at: the last token of the prompt (-1: running text); role: of that token."""

    tokens: Int[np.ndarray, "n"]
    at: int
    role: int


class ScopeBatch(NamedTuple):
    """Texts of some records, padded.

    states: float[texts, length, kept, d]. roles: of every position. record: number of the text's
      record among those of the batch, or -1. held, at: of every record, the text and the position
      whose keys are the edit's. same: pairs of records with one subject, which say nothing of each
      other.
    """

    states: Float[np.ndarray, "texts length kept d"]
    roles: Int[np.ndarray, "texts length"]
    record: Int[np.ndarray, "texts"]
    held: Int[np.ndarray, "records"]
    at: Int[np.ndarray, "records"]
    same: Bool[np.ndarray, "records records"]


def texts_of_record(record: TokenRecord) -> list[ScopeText]:
    """All phrasings and locality prompts, each with its answer."""
    roles = {"own": OWN}
    pairs = [(record.edit, EDIT), *((pair, ASKED) for pair in record.rephrases)]
    pairs += [
        (pair, roles.get(kind, NEAR))
        for pair, kind in zip(record.locality, record.kinds, strict=True)
    ]
    return [ScopeText(pair.tokens, int(pair.read[0]), role) for pair, role in pairs]


def scope_batches(
    records: Sequence[TokenRecord],
    running: Sequence[Int[np.ndarray, "_"]],
    states: States,
    batch: int,
    seed: int,
    longest: int = 32,
) -> Iterator[ScopeBatch]:
    """Endless batches; what is longer than `longest` is cut at its end.

    Args:
      records: each with a rephrase.
    """
    known = [texts_of_record(record) for record in records]
    subjects = np.asarray([record.record.subject.casefold() for record in records])
    rng = np.random.default_rng((seed, 2))
    batch = min(batch, len(records))
    while True:
        chosen = rng.choice(len(records), batch, replace=False)
        texts: list[tuple[int, ScopeText]] = []
        held = np.zeros(batch, np.int32)
        for place, index in enumerate(chosen):
            held[place] = len(texts)
            texts += [(place, text) for text in _drawn(known[index], rng)]
        for index in rng.choice(len(running), min(RUNNING_TEXTS, len(running)), replace=False):
            texts.append((-1, ScopeText(running[index], -1, RUNNING)))
        room = batch * 5 + RUNNING_TEXTS  # one shape, whatever a record has
        names = subjects[chosen]
        yield _collated(texts, held, names[:, None] == names[None], states, (room, longest))


def _drawn(texts: list[ScopeText], rng: np.random.Generator) -> list[ScopeText]:
    """The text that holds the edit, one that asks for it, one near and two of its own subject."""

    def some(role: int, count: int) -> list[ScopeText]:
        pool = [text for text in texts if text.role == role]
        return [pool[i] for i in rng.permutation(len(pool))[:count]]

    (edit,), (asked,) = some(EDIT, 1), some(ASKED, 1)
    if rng.random() < SWAPPED:
        edit, asked = asked._replace(role=EDIT), edit._replace(role=ASKED)
    return [edit, asked, *some(NEAR, 1), *some(OWN, 2)]


def _collated(
    texts: Sequence[tuple[int, ScopeText]],
    held: Int[np.ndarray, "records"],
    same: Bool[np.ndarray, "records records"],
    states: States,
    room: tuple[int, int],
) -> ScopeBatch:
    known = [states(text.tokens) for _, text in texts]
    padded = np.zeros((*room, *known[0].shape[1:]), known[0].dtype)
    roles = np.full(room, PAD, np.int32)
    record = np.full(room[0], -1, np.int32)
    at = np.zeros(len(held), np.int32)
    for place, (index, text) in enumerate(texts):
        n = min(len(text.tokens), room[1])
        padded[place, :n] = known[place][:n]
        record[place] = index
        roles[place, :n] = RUNNING if text.role == RUNNING else AFTER
        if text.role != RUNNING:
            roles[place, : text.at] = WITHIN
            roles[place, text.at] = text.role
        if text.role == EDIT:
            at[index] = text.at
    return ScopeBatch(padded, roles, record, held, at, same)
