"""The two thresholds of a scope, set on edits that it was not trained on, once.

All of these edits are held beside each other, and asked for in other words; their neighbours and
their subjects are asked for in other relations. Of a locality prompt that names the subject of a
held edit, that edit says nothing: it may be asked for. A leak is worse than a miss: it changes what
nobody edited. So as much is found as can be while hardly any text of either kind leaks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, PyTree

from mend_jax.data.scope_texts import (
    ASKED,
    EDIT,
    FAR,
    NEAR,
    OWN,
    ScopeText,
    States,
    known_texts,
    subjects_of,
)
from mend_jax.data.token_records import TokenRecord
from mend_jax.scopes.network import Keys, Near, Scope

SHIFTS = np.arange(-8.0, 8.25, 0.5)
"""Logits by which either threshold may be moved from where training has put it."""
LEAKS = 0.03
"""Share of the neighbours, and of the other questions about a subject, that may leak."""
CHUNK = 64
"""Texts whose keys are made at a time."""


class Asked(NamedTuple):
    """What is asked while edits are held: logits [texts, edits] of both questions; of each text,
    the number of its record; and its role."""

    near: Near
    record: Int[np.ndarray, "texts"]
    role: Int[np.ndarray, "texts"]


class Found(NamedTuple):
    """Shares of the texts: rephrases that find their edit, or another; leaks of locality prompts
    (near and far together), and of other questions about the own subject."""

    found: float
    wrong: float
    near: float
    own: float


def ask(
    scope: Scope,
    phi: PyTree,
    records: Sequence[TokenRecord],
    states: States,
    beside: Sequence[TokenRecord] = (),
) -> Asked:
    """Asks every text of every record while the edits of all are held, and those of others beside.

    Args:
      states: of a text, those that the scope reads.
    """
    entries = [*records, *beside]
    known, subjects = known_texts(entries, [None] * len(entries)), subjects_of(entries)
    texts = [(i, text) for i in range(len(records)) for text in known[i]]
    texts += [(i, known[i][0]) for i in range(len(records), len(entries))]
    every = _keys(scope, phi, [text for _, text in texts], states)
    record = np.asarray([i for i, _ in texts])
    role = np.asarray([text.role for _, text in texts])
    held, asking = (Keys(*(x[at] for x in every)) for at in (role == EDIT, role != EDIT))
    near = jax.device_get(scope.near(phi, asking, held))
    asked = [text for _, text in texts if text.role != EDIT]
    named = np.zeros(near.subject.shape, bool)
    for row, text in zip(named, asked, strict=True):
        row[:] = np.isin(subjects, text.about[1:])
    near = near._replace(subject=np.where(named, -np.inf, near.subject))
    return Asked(near, record[role != EDIT], role[role != EDIT])


def _keys(
    scope: Scope,
    phi: PyTree,
    texts: Sequence[ScopeText],
    states: States,
) -> Keys:
    """Of the last token of each prompt, or of all of it."""

    def length(text: ScopeText) -> int:
        return len(text.tokens) if scope.whole else text.at + 1

    def of_prompts(phi: PyTree, x: jax.Array, at: jax.Array) -> Keys:
        mask = jnp.arange(longest)[None] <= at[:, None]
        keys = scope.keys(phi, x, mask)
        return Keys(*(key[jnp.arange(CHUNK), 0 if scope.whole else at] for key in keys))

    longest = max(map(length, texts))
    jitted, parts = jax.jit(of_prompts), []
    for begin in range(0, len(texts), CHUNK):
        some = texts[begin : begin + CHUNK]
        known = [states(text.tokens)[: length(text)] for text in some]
        x = np.zeros((CHUNK, longest, *known[0].shape[1:]), known[0].dtype)
        at = np.zeros(CHUNK, np.int32)
        for place, rows in enumerate(known):
            x[place, : len(rows)], at[place] = rows, len(rows) - 1
        parts.append(jax.tree.map(lambda key, n=len(some): key[:n], jitted(phi, x, at)))
    return Keys(*(jnp.concatenate(part) for part in zip(*parts, strict=True)))


def found_at(asked: Asked, subject: float = 0.0, relation: float = 0.0) -> Found:
    """What is found with both thresholds lower by so many logits."""
    both = np.minimum(asked.near.subject + subject, asked.near.relation + relation)
    best, fires = np.argmax(both, axis=1), np.max(both, axis=1) > 0
    right = fires & (best == asked.record)

    def share(which: Bool[np.ndarray, "texts"], *roles: int) -> float:
        of_role = which[np.isin(asked.role, roles)]
        return float(np.mean(of_role)) if len(of_role) else 0.0

    return Found(
        share(right, ASKED),
        share(fires & ~right, ASKED),
        share(fires, NEAR, FAR),
        share(fires, OWN),
    )


def with_thresholds(
    scope: Scope, phi: PyTree, asked: Asked, leaks: float = LEAKS
) -> tuple[PyTree, Found]:
    """The scope's parameters with the thresholds that find most while no more than a share of
    `leaks` leaks (or else that leak least), and what is found with them.

    Of several that are as good, those that are nearest to where they were.
    """
    known = {(a, b): found_at(asked, a, b) for a in SHIFTS for b in SHIFTS}

    def worth(shift: tuple[float, float]) -> tuple[float, float, float]:
        at = known[shift]
        above = sum(max(leak - leaks, 0.0) for leak in (at.near, at.own))
        return -above, at.found, -abs(shift[0]) - abs(shift[1])

    best = max(known, key=worth)
    steep, threshold = phi["steep"], phi["threshold"]
    moved = {
        name: threshold[name] - jnp.float32(shift) / jnp.exp(steep[name])
        for name, shift in zip(Near._fields, best, strict=True)
    }
    return phi | {"threshold": moved}, known[best]
