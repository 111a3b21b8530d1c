"""The batches that a scope is trained on: texts of some records, padded; ends of prompts."""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mend_jax.data.batches import TokenRecord
from mend_jax.data.own_subject import question_of
from mend_jax.data.scope_ends import ENDS, Ends, ends_of, remembered
from mend_jax.data.scope_texts import (
    AFTER,
    ASKED,
    DRAWN,
    EDIT,
    NAMED,
    PAD,
    RUNNING,
    WITHIN,
    Corpus,
    Running,
    ScopeText,
    States,
    drawn,
    known_texts,
    subjects_of,
)

RUNNING_TEXTS = 32
"""Of a batch; at most half of them are about its own records."""
ALIKE = 0.5
"""Share of a batch's records that come in groups of one template: there the subject alone tells
which edit is asked for, as among a thousand edits that are held."""
GROUP = 20
"""Records of such a group."""
SHORT = 32
"""Tokens of a prompt, where it is not long; and the share of batches of long ones."""
LONG = 0.3


class ScopeBatch(NamedTuple):
    """Texts of some records, padded.

    states: float[texts, length, kept, d]. mask: which of them are no padding. roles: of every
      position that has keys. record: number of the text's record among those of the batch, or -1.
      about: numbers of the subjects that its prompt is about, its record's own first; then -1.
      Edits of these may be asked for, or not: text and edit say nothing of each other.
      held, at: of every record, the text and the position whose keys are the edit's; number: which
      of the corpus's it is. ends: of other records; None where texts are read as a whole.
    """

    states: Float[np.ndarray, "texts length kept d"]
    mask: Bool[np.ndarray, "texts length"]
    roles: Int[np.ndarray, "texts positions"]
    record: Int[np.ndarray, "texts"]
    about: Int[np.ndarray, "texts named"]
    held: Int[np.ndarray, "records"]
    at: Int[np.ndarray, "records"]
    number: Int[np.ndarray, "records"]
    ends: Ends | None


def scope_batches(
    corpus: Corpus, batch: int, seed: int, longest: int = 32, short: int = SHORT
) -> Iterator[ScopeBatch]:
    """Endless batches. Where there are prompts of more than `short` tokens (after the turns of a
    chat, say), three batches in ten are of half as many records, and of these; their running text
    is cut at `longest`. A record without a short pair (edit, asked) is in no other batch; so every
    other one is such a record, if there are so many.

    Args:
      short: as many tokens at least as some edit's own prompt has, and one of its rephrases.
    """
    records, spoken, running, states, whole = corpus
    known = known_texts(records, spoken)
    near = [[text for text in texts if text.at < short] for texts in known]
    far = [i for i, texts in enumerate(known) if any(text.at >= short for text in texts)]
    long = [_long_first(texts, short) for texts in known]
    brief = [i for i, texts in enumerate(near) if {EDIT, ASKED} <= {x.role for x in texts}]
    subjects, alike = subjects_of(records), _alike(records, brief)
    there = {text.role for texts in known for text in texts}
    each = sum(count for role, count in DRAWN.items() if role in there)
    rng, last = np.random.default_rng((seed, 2)), remembered(states)
    batch = min(batch, len(brief))
    while True:
        is_long = bool(far) and rng.random() < LONG
        if is_long:
            chosen = np.asarray(_of_both(rng.permutation(far), alike)[: batch // 2])
        else:
            chosen = _chosen(alike, batch, rng)
        size = len(chosen)
        texts: list[tuple[int, ScopeText]] = []
        held = np.zeros(size, np.int32)
        for place, index in enumerate(chosen):
            held[place] = len(texts)
            texts += [(place, text) for text in drawn((long if is_long else near)[index], rng)]
        texts += _running(running, chosen, subjects, rng)
        room = size * each + RUNNING_TEXTS * bool(running)  # one shape, whatever a record has
        others = rng.permutation(len(records))[:ENDS]
        ends = None if whole else ends_of([drawn(known[i], rng) for i in others], last)
        shape = room, longest if is_long else min(short, longest)
        shaped = _padded(texts, states, shape, whole)
        at = np.asarray([texts[i][1].at for i in held], np.int32)
        number = np.asarray(chosen, np.int32)
        yield ScopeBatch(*shaped, held, at, number, ends)


def _long_first(texts: Sequence[ScopeText], short: int) -> list[ScopeText]:
    """Of each role the long texts, or all if there are none."""
    roles = {text.role for text in texts if text.at >= short}
    return [text for text in texts if text.role not in roles or text.at >= short]


def _alike(records: Sequence[TokenRecord], chosen: Sequence[int]) -> dict[int, np.ndarray]:
    """Of each of these records, those of them with its template; where a prompt has none, the
    record alone."""
    groups: dict[str, list[int]] = {}
    for i in chosen:
        question = question_of(records[i].record)
        groups.setdefault(question.template if question else f" {i}", []).append(i)
    return {i: np.asarray(group) for group in groups.values() for i in group}


def _of_both(records: Int[np.ndarray, "n"], brief: Container[int]) -> list[int]:
    """Records with a short pair and those without, in turn as long as there are both."""
    parts = [[int(i) for i in records if (int(i) in brief) == short] for short in (False, True)]
    return [i for both in zip_longest(*parts) for i in both if i is not None]


def _chosen(
    alike: Mapping[int, np.ndarray], batch: int, rng: np.random.Generator
) -> Int[np.ndarray, "records"]:
    """The records of a batch: some at random, then groups of one template."""
    order = rng.permutation(sorted(alike))
    chosen = dict.fromkeys(int(i) for i in order[: batch - round(ALIKE * batch)])
    for first in order:
        group = rng.permutation(alike[int(first)])[: GROUP - 1] if len(chosen) < batch else ()
        chosen |= dict.fromkeys(int(i) for i in (first, *group))
    return np.asarray(list(chosen)[:batch])


def _running(
    running: Sequence[Running],
    chosen: Int[np.ndarray, "records"],
    subjects: Int[np.ndarray, "all"],
    rng: np.random.Generator,
) -> list[tuple[int, ScopeText]]:
    """Running texts, those about records of the batch first, with their places in it."""
    places = {int(index): place for place, index in enumerate(chosen)}
    mixed = [running[i] for i in rng.permutation(len(running))]
    about = [text for text in mixed if text.record in places][: RUNNING_TEXTS // 2]
    others = [text for text in mixed if text.record not in places]
    found = [
        (places[text.record], ScopeText(text.tokens, -1, RUNNING, (int(subjects[text.record]),)))
        for text in about
    ]
    others = others[: RUNNING_TEXTS - len(about)]
    return [*found, *((-1, ScopeText(text.tokens, -1, RUNNING)) for text in others)]


class Padded(NamedTuple):
    """The first fields of a `ScopeBatch`."""

    states: Float[np.ndarray, "texts length kept d"]
    mask: Bool[np.ndarray, "texts length"]
    roles: Int[np.ndarray, "texts positions"]
    record: Int[np.ndarray, "texts"]
    about: Int[np.ndarray, "texts named"]


def _padded(
    texts: Sequence[tuple[int, ScopeText]], states: States, room: tuple[int, int], whole: bool
) -> Padded:
    known = [states(text.tokens) for _, text in texts]
    padded = np.zeros((*room, *known[0].shape[1:]), known[0].dtype)
    mask = np.zeros(room, bool)
    mask[:, 0] = True  # also in an empty row: the mean of nothing is no number
    roles = np.full((room[0], 1 if whole else room[1]), PAD, np.int32)
    record = np.full(room[0], -1, np.int32)
    about = np.full((room[0], NAMED), -1, np.int32)
    for place, (index, text) in enumerate(texts):
        n = min(len(text.tokens), room[1])
        padded[place, :n], mask[place, :n] = known[place][:n], True
        record[place] = index
        about[place, : len(text.about)] = text.about
        if whole:
            roles[place] = text.role
            continue
        roles[place, :n] = RUNNING if text.role == RUNNING else AFTER
        if text.role != RUNNING:
            roles[place, : text.at] = WITHIN
            roles[place, text.at] = text.role
    return Padded(padded, mask, roles, record, about)
