"""The training of a scope: which texts are about which edit, and ask for it.

Each of the two questions is taught by the positions that answer it; a position and an edit of
another record are taught together, that not both hold, since whether two records share a relation
is not known; and nothing is taught where the text names the edit's subject. The ends of prompts are
asked of the edits of all records, as if thousands were held: of those that are not in the batch, as
they were when they last were.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from mend_jax.data.prompt_batches import Prompts
from mend_jax.data.scope_batches import DRAWN, ScopeBatch
from mend_jax.data.scope_texts import (
    AFTER,
    ASKED,
    EDIT,
    FAR,
    NEAR,
    OWN,
    PAD,
    RUNNING,
    WITHIN,
)
from mend_jax.objectives import mean_where
from mend_jax.scopes.network import Keys, Scope

OTHER_QUESTION = 0.3
"""Weight of the question that a neighbour, or another relation of the subject, answers with yes."""
BESIDE = 0.3
"""Weight of the edits of all records, as if they were held beside those of the batch."""


class Bank(NamedTuple):
    """The edits of all records, as they were when they were last in a batch.

    known: whether they were in one. subject: a number for each subject.
    """

    keys: Keys
    known: Bool[Array, "all"]
    subject: Int[Array, "all"]


def empty_bank(scope: Scope, phi: PyTree, subjects: Int[np.ndarray, "all"]) -> Bank:
    """Of records with these subjects, none of which was seen yet."""
    d = phi["centre"].shape[-1]
    one = jax.ShapeDtypeStruct((1, 1, len(scope.stages), d), jnp.float32)
    n, keys = len(subjects), jax.eval_shape(lambda p, x: scope.keys(p, x, None), phi, one)
    blank = Keys(*(jnp.zeros((n, key.shape[-1]), jnp.float32) for key in keys))
    return Bank(blank, jnp.zeros(n, bool), jnp.asarray(subjects))


def scope_loss(
    scope: Scope, phi: PyTree, batch: ScopeBatch, bank: Bank
) -> tuple[Array, tuple[dict[str, Array], Bank]]:
    """The sum of the losses; each of them, by what it teaches; and the bank with these edits."""
    roles = jnp.asarray(batch.roles)
    keys = scope.keys(phi, jnp.asarray(batch.states), jnp.asarray(batch.mask))
    edits = Keys(*(x[batch.held, batch.at] for x in keys))
    near = scope.near(phi, keys, edits)
    known = batch.record >= 0
    mine = jnp.broadcast_to(jnp.maximum(batch.record, 0)[:, None, None], (*roles.shape, 1))
    subject, relation = (jnp.take_along_axis(x, mine, axis=-1)[..., 0] for x in near)
    wrong = _both(near.subject, near.relation)
    subjects, about = bank.subject[batch.number], jnp.asarray(batch.about)
    named = _named(about, subjects)[:, None]
    others = ~jnp.where(_asking(roles)[..., None], named, _named(about[:, :1], subjects)[:, None])
    wrong = jnp.sum(jnp.where(others, wrong, 0.0), axis=-1)
    mine_not = jnp.where(known[:, None], _yes(-relation), 0.0)
    whose = jax.nn.one_hot(jnp.maximum(batch.record, 0), len(batch.at), dtype=bool)[:, None]
    rivals = jnp.where(others | whose, near.subject, -jnp.inf)
    mean = partial(_mean_at, roles)
    losses = {
        "asked": mean(_yes(subject) + _yes(relation), ASKED),
        "near": mean(_yes(-subject) + OTHER_QUESTION * _yes(relation), NEAR),
        "far": mean(_yes(-subject) + _yes(-relation), FAR),
        "own": mean(OTHER_QUESTION * _yes(subject) + _yes(-relation), OWN),
        "within": mean(_yes(-relation), WITHIN),
        "after": mean(_yes(-relation), AFTER) + mean(mine_not, RUNNING),
        "others": mean(wrong, ASKED, NEAR, FAR, OWN)
        + mean(wrong, WITHIN, AFTER)
        + mean(wrong, RUNNING),
        "whose": 0.5 * mean(jax.nn.logsumexp(rivals, axis=-1) - subject, ASKED),
        "held": BESIDE * _beside(scope, phi, batch, keys, bank),
    }
    seen = jax.tree.map(lambda old, new: old.at[batch.number].set(new), bank.keys, edits)
    bank = bank._replace(keys=seen, known=bank.known.at[batch.number].set(True))
    return jnp.sum(jnp.stack(list(losses.values()))), (losses, bank)


def _beside(
    scope: Scope, phi: PyTree, batch: ScopeBatch, keys: Keys, bank: Bank
) -> Float[Array, ""]:
    """That no edit of the bank about another subject is asked for at the end of a prompt."""
    ends = _asking(jnp.asarray(batch.roles))
    at, asked = jnp.argmax(ends, axis=1), jnp.any(ends, axis=1) & (batch.record >= 0)
    asking = Keys(*(x[jnp.arange(len(at)), at] for x in keys))
    near = scope.near(phi, asking, bank.keys)
    others = bank.known[None] & ~_named(jnp.asarray(batch.about), bank.subject)
    wrong = jnp.sum(jnp.where(others, _both(near.subject, near.relation), 0.0), axis=-1)
    return mean_where(wrong, asked)


def _asking(roles: Int[Array, "texts positions"]) -> Bool[Array, "texts positions"]:
    """The last tokens of prompts."""
    return jnp.isin(roles, jnp.asarray(tuple(DRAWN)))


def _named(
    about: Int[Array, "texts named"], subjects: Int[Array, "edits"]
) -> Bool[Array, "texts edits"]:
    """Whether a text is about the subject of an edit."""
    return jnp.any(about[:, :, None] == subjects[None, None], axis=1)


def prompts_loss(scope: Scope, phi: PyTree, prompts: Prompts) -> Float[Array, ""]:
    """The relation's question alone, asked at the ends of many records' prompts."""
    states, mask = jnp.asarray(prompts.states), jnp.asarray(prompts.mask)
    keys = scope.keys(phi, states.reshape(-1, *states.shape[2:]), mask.reshape(-1, mask.shape[2]))
    keys = Keys(*(x[:, -1].reshape(*states.shape[:2], -1) for x in keys))

    def of_record(asking: Keys) -> Float[Array, "roles 1"]:
        edit = list(DRAWN).index(EDIT)
        return scope.near(phi, asking, Keys(*(x[edit, None] for x in asking))).relation

    logit = jax.vmap(of_record, 1, 1)(keys)[..., 0]
    said = {
        ASKED: _yes(logit), NEAR: OTHER_QUESTION * _yes(logit), FAR: _yes(-logit), OWN: _yes(-logit)
    }  # fmt: skip
    there, found = jnp.asarray(prompts.there), jnp.float32(0)
    for role, losses in said.items():
        place = list(DRAWN).index(role)
        wanted = jnp.where(there[place], losses[place], 0.0)
        found += jnp.sum(wanted) / jnp.maximum(jnp.sum(there[place]), 1).astype(jnp.float32)
    return found


def _yes(logit: Float[Array, "*at"]) -> Float[Array, "*at"]:
    """-log p."""
    return -jax.nn.log_sigmoid(logit)


def _both(subject: Float[Array, "*at"], relation: Float[Array, "*at"]) -> Float[Array, "*at"]:
    """-log(1 - p q): the loss of saying that both hold, where not both do."""
    together = jax.nn.log_sigmoid(subject) + jax.nn.log_sigmoid(relation)
    return -jnp.log1p(-jnp.exp(jnp.minimum(together, -1e-5)))


def _mean_at(roles: Array, values: Array, *wanted: int) -> Float[Array, ""]:
    """Mean over the positions of these roles; 0 if there are none."""
    at: Bool[Array, "texts length"] = jnp.zeros(roles.shape, bool)
    for role in wanted:
        at = at | (roles == role)
    values = jnp.where(at & (roles != PAD), values, 0.0)
    return jnp.sum(values) / jnp.maximum(jnp.sum(at), 1).astype(jnp.float32)
