"""The two keys of every position of a text: of whom it speaks, and what is asked here.

A text that is read as a whole, by an encoder, has one position: the mean of its tokens asks.

    subject   attention from this position's late states over the early states up to it: the names
              that were read, as they are written
    relation  this position's own late states: what a next token would answer

Both are of unit length, and functions of the text up to the position (or of all of it). An edit is
felt where both of its own keys, those of its prompt's last token, are near: s_q . s_e above one
threshold, r_q . r_e above another. One similarity could not say "and": the neighbour has the
relation without the subject, another question about the subject has the subject without the
relation.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

FARTHEST = 64
"""Distances of a key from the position that asks are told apart up to this one."""


class Keys(NamedTuple):
    """Unit vectors float32[..., width], of whom and of what."""

    subject: Float[Array, "*at subject"]
    relation: Float[Array, "*at relation"]


class Near(NamedTuple):
    """How near keys are to those of edits: logits, above 0 where they are more likely the same."""

    subject: Float[Array, "*at edits"]
    relation: Float[Array, "*at edits"]


class Scope(NamedTuple):
    """A network that says where an edit holds.

    init(key, d) -> phi, for states of d features.
    keys(phi, states, mask) -> Keys of every position, from states[k, length, kept, d]: those before
      the stages `stages`, early ones first; mask: bool[k, length], which are no padding, or None.
    near(phi, asking, held) -> Near: keys [..., width] against keys [edits, width].
    stages: numbers of the model's stages before which the states are kept.
    config: how to build it again.
    whole: whether a text is read as a whole: its keys have one position.
    """

    init: Callable[[Key[Array, ""], int], PyTree]
    keys: Callable[[PyTree, Float[Array, "k length kept d"], Bool[Array, "k length"] | None], Keys]
    near: Callable[[PyTree, Keys, Keys], Near]
    stages: tuple[int, ...]
    config: dict[str, Any]
    whole: bool = False


class Sizes(TypedDict, total=False):
    """Of the network. heads, width: of the attention that pools a subject. subject, relation: of
    the keys. hidden: of the layer between the late states and the relation's key."""

    heads: int
    width: int
    subject: int
    relation: int
    hidden: int


SIZES: Sizes = {"heads": 4, "width": 64, "subject": 256, "relation": 64, "hidden": 256}
"""Those that are not given."""


def two_keys(
    stages: tuple[int, ...], late: int = 1, whole: bool = False, **sizes: Unpack[Sizes]
) -> Scope:
    """The scope of a causal model, or of one that reads texts as a whole.

    Args:
      stages: e.g. before the first block (the tokens as they are written), early, late.
      late: how many of the stages, the last ones, are late.
      whole: as in `Scope`. sizes: as `Sizes` says.

    Raises:
      TypeError: a size of another name.
    """
    if others := sizes.keys() - SIZES.keys():
        raise TypeError(f"two_keys has no size called {sorted(others)[0]!r}")
    size = SIZES | sizes
    heads, width = size["heads"], size["width"]

    def init(key: Key[Array, ""], d: int) -> PyTree:
        far = {} if whole else {"distance": jnp.zeros((heads, FARTHEST), jnp.float32)}
        return _fresh(key, d * (len(stages) - late), d * late, size) | far | {
            "centre": jnp.zeros((len(stages), d), jnp.float32),
            "spread": jnp.ones((len(stages), d), jnp.float32),
        }

    def keys(
        phi: PyTree,
        states: Float[Array, "k length kept d"],
        mask: Bool[Array, "k length"] | None = None,
    ) -> Keys:
        w = phi["kernels"]
        k, length = states.shape[:2]
        there = jnp.ones((k, length), bool) if mask is None else jnp.asarray(mask)
        asking = partial(_mean, there=there) if whole else lambda x: x
        fixed = jax.lax.stop_gradient((phi["centre"], phi["spread"]))
        centre, spread = (x[None, None] for x in fixed)
        plain = (_normed(jnp.asarray(states).astype(jnp.float32)) - centre) / spread
        early, last = (
            part.reshape(k, length, -1) for part in (plain[:, :, :-late], plain[:, :, -late:])
        )
        query, key, value = (
            (x @ w[name]).reshape(k, -1, heads, width)
            for x, name in ((asking(last), "query"), (early, "key"), (early, "value"))
        )
        scores = jnp.einsum("kqhw,kshw->khqs", query, key) * width**-0.5
        read = there[:, None, None]
        if not whole:
            distance = (jnp.arange(length)[:, None] - jnp.arange(length)[None])[None, None]
            scores = scores + phi["distance"][None, :, jnp.clip(distance[0, 0], 0, FARTHEST - 1)]
            read = (distance >= 0) & read | (distance == 0)  # what is padding reads itself
        scores = jnp.where(read, scores, -jnp.inf)
        pooled = jnp.einsum("khqs,kshw->kqhw", jax.nn.softmax(scores, axis=-1), value)
        whom = pooled.reshape(k, -1, heads * width) @ w["subject"]
        what = asking(jax.nn.gelu(last @ w["inner"])) @ w["outer"] + asking(last) @ w["skip"]
        return Keys(_unit(whom), _unit(what))

    def near(phi: PyTree, asking: Keys, held: Keys) -> Near:
        def logit(name: str, a: Array, b: Array) -> Array:
            return jnp.exp(phi["steep"][name]) * (a @ b.T - phi["threshold"][name])

        return Near(*map(logit, Keys._fields, asking, held))

    config = {"scope": "two_keys", "stages": list(stages), "late": late, **size}
    return Scope(init, keys, near, stages, config | ({"whole": True} if whole else {}), whole)


def _fresh(key: Key[Array, ""], early: int, late: int, size: Sizes) -> dict[str, Any]:
    """Parameters, of so many early and late features, but for their statistics."""
    pooled = size["heads"] * size["width"]
    shapes = {
        "query": (late, pooled), "key": (early, pooled), "value": (early, pooled),
        "subject": (pooled, size["subject"]), "inner": (late, size["hidden"]),
        "outer": (size["hidden"], size["relation"]), "skip": (late, size["relation"]),
    }  # fmt: skip
    drawn = zip(shapes.items(), jax.random.split(key, len(shapes)), strict=True)
    return {
        "kernels": {
            name: jax.random.normal(k, shape, jnp.float32) * shape[0] ** -0.5
            for (name, shape), k in drawn
        },
        "steep": {"subject": jnp.float32(3.4), "relation": jnp.float32(3.4)},  # exp: 30
        "threshold": {"subject": jnp.float32(0.5), "relation": jnp.float32(0.5)},
    }


def scope_of(config: Mapping[str, Any]) -> Scope:
    """The scope that a config describes.

    Raises:
      ValueError: of a kind that is not known here.
    """
    options = dict(config)
    name = options.pop("scope", None)
    if name != "two_keys":
        raise ValueError(f"no scope is called {name!r}; known are two_keys")
    return two_keys(tuple(options.pop("stages")), **options)


class Read(NamedTuple):
    """The stages before which the states are kept that a scope reads, and how many are late."""

    stages: tuple[int, ...]
    late: int


def stages_for(blocks: int, first: int, whole: bool = False) -> Read:
    """What a scope reads of a model of so many blocks: the tokens' own states, early and late ones.

    Args:
      first: number of the first stage that is edited, or that is no block of these.
      whole: a text is read as a whole: its latest states are read too, which know the most of it.

    Raises:
      ValueError: no block lies before it.
    """
    if first < 2:
        raise ValueError(
            "a scope reads what the blocks below the first edited one make of a text, and there is "
            "none: train an editor of later blocks only (--sites)"
        )
    middle, high = (min(1 + round(blocks * share), first) for share in (16 / 30, 22 / 30))
    late = {middle, first if whole else high}
    early = min(1 + round(blocks * 4 / 30), middle - 1)
    return Read(tuple(sorted({1, early} | late)), len(late))


def _mean(x: Float[Array, "k length d"], there: Bool[Array, "k length"]) -> Float[Array, "k 1 d"]:
    """Of the tokens that are there."""
    some = there[..., None].astype(x.dtype)
    return jnp.sum(x * some, axis=1, keepdims=True) / jnp.sum(some, axis=1, keepdims=True)


def _normed(x: Float[Array, "*at d"]) -> Float[Array, "*at d"]:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def _unit(x: Float[Array, "*at d"]) -> Float[Array, "*at d"]:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
