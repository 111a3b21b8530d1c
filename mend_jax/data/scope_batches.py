"""The batches that a scope is trained on: texts of some records, padded."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mend_jax.data.bucketing import LONG, SHORT
from mend_jax.data.own_subject import question_of
from mend_jax.data.scope_texts import (
    AFTER,
    ASKED,
    EDIT,
    FAR,
    NAMED,
    NEAR,
    OWN,
    PAD,
    RUNNING,
    WITHIN,
    Corpus,
    Running,
    ScopeText,
    States,
    known_texts,
    subjects_of,
)
from mend_jax.data.token_records import TokenRecord

DRAWN = {EDIT: 1, ASKED: 1, NEAR: 1, FAR: 1, OWN: 2}
"""How many texts of a record are in a batch, by role."""
SWAPPED = 0.3
"""How often a record is held by a rephrase, and asked by its prompt."""
RUNNING_TEXTS = 32
"""Of a batch; at most half of them are about its own records."""
ALIKE = 0.5
"""Share of a batch's records that come in groups of one template: there the subject alone tells
which edit is asked for, as among a thousand edits that are held."""
GROUP = 20
"""Records of such a group."""


class ScopeBatch(NamedTuple):
    """Texts of some records, padded.

    states: float[texts, length, kept, d]. mask: which of them are no padding. roles: of every
      position that has keys. record: number of the text's record among those of the batch, or -1.
      about: numbers of the subjects that its prompt is about, its record's own first; then -1.
      Edits of these may be asked for, or not: text and edit say nothing of each other.
      held, at: of every record, the text and the position whose keys are the edit's; number: which
      of the corpus's it is.
    """

    states: Float[np.ndarray, "texts length kept d"]
    mask: Bool[np.ndarray, "texts length"]
    roles: Int[np.ndarray, "texts positions"]
    record: Int[np.ndarray, "texts"]
    about: Int[np.ndarray, "texts named"]
    held: Int[np.ndarray, "records"]
    at: Int[np.ndarray, "records"]
    number: Int[np.ndarray, "records"]


def scope_batches(
    corpus: Corpus, batch: int, seed: int, longest: int = 32, short: int = SHORT
) -> Iterator[ScopeBatch]:
    """Endless batches. Where there are prompts of more than `short` tokens (after the turns of a
    chat, say), one batch in five is of half as many records, and of these; their running text is
    cut at `longest`.

    Args:
      short: as many tokens at least as any edit's own prompt has, and one of its rephrases.
    """
    records, spoken, running, states, whole = corpus
    known = known_texts(records, spoken)
    near, far, long = by_length(known, short)
    subjects, alike = subjects_of(records), _alike(records)
    there = {text.role for texts in known for text in texts}
    each = sum(count for role, count in DRAWN.items() if role in there)
    rng = np.random.default_rng((seed, 2))
    batch = min(batch, len(records))
    while True:
        is_long = bool(far) and rng.random() < LONG
        size = min(batch // 2, len(far)) if is_long else batch
        chosen = rng.permutation(far)[:size] if is_long else _chosen(alike, size, rng)
        texts: list[tuple[int, ScopeText]] = []
        held = np.zeros(size, np.int32)
        for place, index in enumerate(chosen):
            held[place] = len(texts)
            texts += [(place, text) for text in drawn((long if is_long else near)[index], rng)]
        texts += _running(running, chosen, subjects, rng)
        room = size * each + RUNNING_TEXTS * bool(running)  # one shape, whatever a record has
        shape = room, longest if is_long else min(short, longest)
        shaped = _padded(texts, states, shape, whole)
        at = np.asarray([texts[i][1].at for i in held], np.int32)
        number = np.asarray(chosen, np.int32)
        yield ScopeBatch(*shaped, held, at, number)


def by_length(
    known: Sequence[list[ScopeText]], short: int
) -> tuple[list[list[ScopeText]], list[int], list[list[ScopeText]]]:
    """Of each record the texts whose prompts are short; the numbers of those records that have long
    ones; and of each record those, of the roles that have any."""
    near = [[text for text in texts if text.at < short] for texts in known]
    far = [i for i, texts in enumerate(known) if any(text.at >= short for text in texts)]
    return near, far, [_long_first(texts, short) for texts in known]


def _long_first(texts: Sequence[ScopeText], short: int) -> list[ScopeText]:
    """Of each role the long texts, or all if there are none."""
    roles = {text.role for text in texts if text.at >= short}
    return [text for text in texts if text.role not in roles or text.at >= short]


def _alike(records: Sequence[TokenRecord]) -> list[np.ndarray]:
    """Of each record, those with its template; where a prompt has none, the record alone."""
    groups: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        question = question_of(record.record)
        groups.setdefault(question.template if question else f" {i}", []).append(i)
    members = {i: np.asarray(group) for group in groups.values() for i in group}
    return [members[i] for i in range(len(records))]


def _chosen(
    alike: Sequence[np.ndarray], batch: int, rng: np.random.Generator
) -> Int[np.ndarray, "records"]:
    """The records of a batch: some at random, then groups of one template."""
    order = rng.permutation(len(alike))
    chosen = dict.fromkeys(int(i) for i in order[: batch - round(ALIKE * batch)])
    for first in order:
        group = rng.permutation(alike[first])[: GROUP - 1] if len(chosen) < batch else ()
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


def drawn(texts: list[ScopeText], rng: np.random.Generator) -> list[ScopeText]:
    """Some texts of every role; the first holds the edit, and the second asks for it."""

    def some(role: int) -> list[ScopeText]:
        pool = [text for text in texts if text.role == role]
        return [pool[i] for i in rng.permutation(len(pool))[: DRAWN[role]]]

    edit, asked, *others = (text for role in DRAWN for text in some(role))
    if rng.random() < SWAPPED:
        edit, asked = asked._replace(role=EDIT), edit._replace(role=ASKED)
    return [edit, asked, *others]


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
