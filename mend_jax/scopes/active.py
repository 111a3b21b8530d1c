"""Which of the held edits acts at each position of a text.

Where none is active, the nearest edit whose two thresholds are passed begins. It stays active while
the tokens that follow are those of its target; once the target is said, or another token comes,
each position decides for itself again. So at most one edit acts at a position, and what acts there
is a function of the text up to it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mend_jax.scopes.memory import Memory
from mend_jax.scopes.network import Near

NONE = -1
"""In place of an edit's slot, where none acts; in place of a token, after the end of a target."""


class Place(NamedTuple):
    """Of each text, or position: the edit that acts, or NONE, and how many tokens of its target
    were said."""

    edit: Int[Array, "k *length"]
    said: Int[Array, "k *length"]


def nobody(k: int) -> Place:
    """No edit acts in k texts."""
    return Place(jnp.full(k, NONE, jnp.int32), jnp.zeros(k, jnp.int32))


def before(memory: Memory | None, k: int) -> Place:
    """How it stood before the first of the tokens that are read now."""
    none = nobody(k)
    if memory is None:
        return none
    first = memory.at[:, :1]
    found: list[Array] = []
    for name, nothing in none._asdict().items():
        known = memory.recall(name)
        if known is None:
            return none
        last = jnp.take_along_axis(known, jnp.maximum(first - 1, 0), axis=1)
        found.append(jnp.where(first > 0, last, nothing[:, None])[:, 0])
    return Place(*found)


def passed(near: Near, used: Bool[Array, "edits"]) -> Float[Array, "*at edits"]:
    """By how many logits both thresholds are passed; -inf in slots that hold no edit."""
    return jnp.where(used, jnp.minimum(near.subject, near.relation), -jnp.inf)


def fires(near: Near, used: Bool[Array, "edits"]) -> Int[Array, "*at"]:
    """The slot of the edit that passes both thresholds best, or NONE."""
    both = passed(near, used)
    best = jnp.argmax(both, axis=-1)
    return jnp.where(jnp.max(both, axis=-1) > 0, best, NONE).astype(jnp.int32)


def active(
    fire: Int[Array, "k length"],
    tokens: Int[Array, "k length"],
    targets: Int[Array, "edits answers"],
    place: Place,
) -> Place:
    """How it stands at each position: the slot of the edit that acts there, or NONE.

    Args:
      fire: what each position decides for itself.
      targets: the tokens of each edit's target, NONE after its end.
      place: how it stood before the first.
    """
    lengths = jnp.sum(targets != NONE, axis=-1)

    def step(place: Place, now: tuple[Array, Array]) -> tuple[Place, Place]:
        fire, token = now
        edit, said = place
        on = (edit != NONE) & (targets[edit, said] == token)
        going = on & (said + 1 < lengths[edit])
        place = Place(jnp.where(going, edit, fire), jnp.where(going, said + 1, 0))
        return place, place

    _, places = jax.lax.scan(step, place, (fire.T, tokens.T))
    return Place(*(x.T for x in places))
