"""GRACE's codebook: entries beside one layer, in their order (Hartvigsen et al. 2023, Algorithm 1).

Where the layer's input is within the radius of its nearest key, that key's value is the output:

    z(x) = v_i   if |x - k_i| <= epsilon_i,  i = argmin_j |x - k_j|;   else the layer's own

What the radii are, follows from the entries as they were made, with their own radius epsilon_init,
and from their order. So they are worked out when the codebook is used, and an entry that is removed
is gone, with all that it did to others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from mend_jax.calls import intercepting
from mend_jax.editors.held import Holding, Slots, count, put, slots, take_out
from mend_jax.example import Pair
from mend_jax.sites import check_visited

NO_ENTRY = -1.0
"""Radius of what is no entry of the codebook: no input is that near."""


class Entry(NamedTuple):
    """One edit; with a leading axis, a codebook. answer: its tokens, IGNORED after them."""

    key: Float[Array, "*book d_in"]
    value: Float[Array, "*book d_out"]
    radius: Float[Array, "*book"]
    answer: Int[Array, "*book answers"]


class Held(NamedTuple):
    """Entries as they were made, and their order: the number of each in all that were added."""

    entries: Slots
    order: Int[Array, "capacity"]


def looked_up(function: Callable[..., Any], site: str, book: Entry) -> Callable[..., Any]:
    """`function` with the codebook beside its layer `site`; each position is looked up by itself.

    Raises:
      SiteError: the function does not call the site.
    """

    def after(*args: Any, **kwargs: Any) -> Any:
        visited: set[str] = set()

        def replace(site: str, x: Any, y: Array) -> Array:
            visited.add(site)
            gaps = distances(jnp.asarray(x), book)
            nearest = jnp.argmin(gaps, axis=-1)
            near = jnp.min(gaps, axis=-1) <= book.radius[nearest]
            return jnp.where(near[..., None], book.value[nearest].astype(y.dtype), y)

        with intercepting(frozenset({site}), replace, args) as given:
            out = function(*given, **kwargs)
        check_visited((site,), visited)
        return out

    return after


def distances(x: Float[Array, "*any d_in"], book: Entry) -> Float[Array, "*any entries"]:
    """To the key of each entry; from what is no entry, all is infinitely far."""
    x = x.astype(jnp.float32)[..., None, :]
    keys = book.key.reshape(*(1,) * (x.ndim - 2), *book.key.shape)
    there = (book.radius >= 0).reshape(*(1,) * (x.ndim - 2), -1)
    return jnp.where(there, jnp.linalg.norm(x - keys, axis=-1), jnp.inf)


def settled(entries: Entry, used: Bool[Array, "entries"]) -> Float[Array, "entries"]:
    """The radii of entries that were added one after another, each by one of three rules.

    Of a new entry and the nearest one before it, whose keys are d apart,
      add: d > epsilon + epsilon_init. It has its own radius, epsilon_init.
      expand: nearer, with the same answer. That one's radius becomes d if it was less; what is new
        becomes no entry.
      split: nearer, with another answer. Both have the radius d / 2.
    """
    keys, answers = entries.key, entries.answer
    gaps = jnp.linalg.norm(keys[:, None] - keys[None], axis=-1)
    same = jnp.all(answers[:, None] == answers[None], axis=-1)

    def add(radii: Array, i: Array) -> tuple[Array, None]:
        gap = jnp.where(radii >= 0, gaps[i], jnp.inf)
        nearest = jnp.argmin(gap)
        d, theirs, own = gap[nearest], radii[nearest], entries.radius[i]
        apart = d > theirs + own
        joins = ~apart & same[i, nearest]
        theirs = jnp.where(joins, jnp.maximum(theirs, d), jnp.where(apart, theirs, d / 2))
        own = jnp.where(joins, NO_ENTRY, jnp.where(apart, own, d / 2))
        after = radii.at[nearest].set(theirs).at[i].set(own)
        return jnp.where(used[i], after, radii), None

    none = jnp.full(used.shape, NO_ENTRY)
    return jax.lax.scan(add, none, jnp.arange(len(used)))[0]


def codebook() -> Holding:
    """Entries in the order in which they were added. `apply` gives them with the radii that follow
    from it."""

    def keep(params: PyTree, pair: Pair, edit: Any) -> Entry:
        del params, pair
        one: Entry = jax.tree.map(lambda x: x[0], edit)
        return one

    def hold(kept: Entry, capacity: int) -> Held:
        entries = slots(kept, count(kept), capacity)
        return Held(entries, jnp.arange(capacity, dtype=jnp.int32))

    def add(held: Held, kept: Entry) -> Held:
        entries, order = held
        slot, full = jnp.argmin(entries.used), jnp.all(entries.used)
        last = 1 + jnp.max(jnp.where(entries.used, order, -1))
        return Held(put(entries, kept), order.at[slot].set(jnp.where(full, order[slot], last)))

    def remove(held: Held, slot: Int[Array, ""] | int) -> Held:
        return held._replace(entries=take_out(held.entries, slot))

    def used(held: Held) -> Bool[Array, "capacity"]:
        return held.entries.used

    def apply(held: Held) -> Any:
        order = jnp.argsort(held.order)
        entries, used = jax.tree.map(lambda x: x[order], (held.entries.kept, held.entries.used))
        return entries._replace(radius=settled(entries, used))

    return Holding(keep, hold, add, remove, used, apply, {"at_once": "codebook"})
