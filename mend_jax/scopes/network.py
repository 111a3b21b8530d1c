"""The two keys of every position of a text: of whom it speaks, and what is asked here.

    subject   attention from this position's late states over the early states up to it: the names
              that were read, as they are written
    relation  this position's own late states, what a next token would answer; and attention over
              what the positions up to it ask: a question is told apart by its words, and where an
              answer begins, its last token alone says little of them

Both are of unit length, and functions of the text up to the position. An edit is felt where both of
its own keys, those of its prompt's last token, are near: s_q . s_e above one threshold, r_q . r_e
above another. One similarity could not say "and": the neighbour has the relation without the
subject, another question about the subject has the subject without the relation. (Texts that are
read as a whole: `whole_text`.)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from mend_jax import products
from mend_jax.scopes.memory import Memory

FARTHEST = 64
"""Distances of a key from the position that asks are told apart up to this one."""
SLOPE = 0.3
"""Logits a token by which attention prefers what is near, before training, which moves each of them
by hundredths. Without it names are read alike wherever they stand, and other text hides a prompt's.
"""
STEEP = {"subject": 30.0, "relation": 10.0}
"""Logits by which a similarity of one is above that of none. They are not trained: the steeper the
relation's question may become, the less it knows of phrasings that it has not seen."""


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
    keys(phi, states, mask=None, memory=None) -> Keys of every position, from states[k, length,
      kept, d]: those before the stages `stages`, early ones first. mask: bool[k, length], which are
      no padding. memory: of the positions before these, if there are any; it learns these, too.
    near(phi, asking, held) -> Near: keys [..., width] against keys [edits, width].
    stages: numbers of the model's stages before which the states are kept.
    config: how to build it again.
    whole: whether a text is read as a whole: its keys have one position.
    """

    init: Callable[[Key[Array, ""], int], PyTree]
    keys: Callable[..., Keys]
    near: Callable[[PyTree, Keys, Keys], Near]
    stages: tuple[int, ...]
    config: dict[str, Any]
    whole: bool = False


class Sizes(TypedDict, total=False):
    """Of the network. heads, width: of the attention that pools a subject. subject, relation: of
    the keys. hidden: of the layer between the late states and the relation's key. asked_heads: of
    the attention over what is asked, of the same width (0: there is none)."""

    heads: int
    width: int
    subject: int
    relation: int
    hidden: int
    asked_heads: int


SIZES: Sizes = {
    "heads": 4, "width": 64, "subject": 256, "relation": 64, "hidden": 256, "asked_heads": 4
}  # fmt: skip
"""Those that are not given."""


def two_keys(stages: tuple[int, ...], late: int = 1, **sizes: Unpack[Sizes]) -> Scope:
    """The scope of a causal model.

    Args:
      stages: e.g. before the first block (the tokens as they are written), early, late.
      late: how many of the stages, the last ones, are late.
      sizes: as `Sizes` says.

    Raises:
      TypeError: a size of another name.
    """
    size = sizes_of(sizes)
    width, asked = size["width"], size["asked_heads"] > 0

    def init(key: Key[Array, ""], d: int) -> PyTree:
        early, last, hidden = d * (len(stages) - late), d * late, size["hidden"]
        pooled, of_asked = (size[name] * width for name in ("heads", "asked_heads"))
        shapes = {
            "query": (last, pooled), "key": (early, pooled), "value": (early, pooled),
            "subject": (pooled, size["subject"]), "inner": (last, hidden),
            "outer": (hidden, size["relation"]), "skip": (last, size["relation"]),
        }  # fmt: skip
        if asked:
            shapes |= {f"asked_{name}": (hidden, of_asked) for name in ("query", "key", "value")}
            shapes |= {"asked": (of_asked, size["relation"])}
        phi = fresh(key, shapes, (len(stages), d))
        far = -SLOPE * jnp.arange(FARTHEST, dtype=jnp.float32)
        phi["distance"] = jnp.tile(far, (size["heads"], 1))
        if asked:
            phi["asked_distance"] = jnp.tile(far, (size["asked_heads"], 1))
        return phi

    def keys(
        phi: PyTree,
        states: Float[Array, "k length kept d"],
        mask: Bool[Array, "k length"] | None = None,
        memory: Memory | None = None,
    ) -> Keys:
        w = phi["kernels"]
        k, length = states.shape[:2]
        plain = standard(phi, states)
        early, last = (
            part.reshape(k, length, -1) for part in (plain[:, :, :-late], plain[:, :, -late:])
        )
        pooled = _attention(phi, "", width, last, early, mask, memory)
        whom = times(pooled, w["subject"])
        inner = jax.nn.gelu(times(last, w["inner"]))
        what = times(inner, w["outer"]) + times(last, w["skip"])
        if asked:
            pooled = _attention(phi, "asked_", width, inner, inner, mask, memory)
            what += times(pooled, w["asked"])
        return Keys(unit(whom), unit(what))

    config = {"scope": "two_keys", "stages": list(stages), "late": late, **size}
    return Scope(init, keys, near, stages, config)


def _attention(
    phi: PyTree,
    name: str,
    width: int,
    asking: Float[Array, "k n d_asking"],
    read: Float[Array, "k n d_read"],
    mask: Bool[Array, "k n"] | None,
    memory: Memory | None,
) -> Float[Array, "k n pooled"]:
    """Of every position over those up to it, by their contents and by how far they are.

    Args:
      name: with which its kernels, and what is remembered, begin.
    """
    (k, n), w = asking.shape[:2], phi["kernels"]
    query, key, value = (
        times(x, w[name + part]).reshape(k, n, -1, width)
        for x, part in ((asking, "query"), (read, "key"), (read, "value"))
    )
    at = jnp.arange(n)[None]
    if memory is not None:
        at = memory.at
        key, value = memory.keep(f"{name}key", key), memory.keep(f"{name}value", value)
    scores = jnp.einsum("kqhw,kshw->khqs", query, key) * width**-0.5
    distance = at[:, None, :, None] - jnp.arange(key.shape[1])[None, None, None]
    far = phi[f"{name}distance"][:, jnp.clip(distance[:, 0], 0, FARTHEST - 1)]
    seen = distance >= 0
    if mask is not None:
        seen = seen & mask[:, None, None] | (distance == 0)  # what is padding reads itself
    scores = jnp.where(seen, scores + far.swapaxes(0, 1), -jnp.inf)
    pooled = jnp.einsum("khqs,kshw->kqhw", jax.nn.softmax(scores, axis=-1), value)
    return pooled.reshape(k, n, -1)


def sizes_of(given: Sizes) -> Sizes:
    """Those that are given, and the others.

    Raises:
      TypeError: one of another name.
    """
    if others := given.keys() - SIZES.keys():
        raise TypeError(f"a scope has no size called {sorted(others)[0]!r}")
    return SIZES | given


def fresh(
    key: Key[Array, ""], shapes: Mapping[str, tuple[int, int]], states: tuple[int, int]
) -> dict[str, Any]:
    """Parameters: kernels of these shapes, statistics of states [kept, d], and thresholds."""
    drawn = zip(shapes.items(), jax.random.split(key, len(shapes)), strict=True)
    return {
        "kernels": {
            name: jax.random.normal(k, shape, jnp.float32) * shape[0] ** -0.5
            for (name, shape), k in drawn
        },
        "steep": {name: jnp.float32(jnp.log(steep)) for name, steep in STEEP.items()},
        "threshold": {"subject": jnp.float32(0.5), "relation": jnp.float32(0.5)},
        "centre": jnp.zeros(states, jnp.float32),
        "spread": jnp.ones(states, jnp.float32),
    }


def standard(phi: PyTree, states: Float[Array, "*at kept d"]) -> Float[Array, "*at kept d"]:
    """States of unit size, by the mean and spread of those that were trained on; float32."""
    centre, spread = jax.lax.stop_gradient((phi["centre"], phi["spread"]))
    x = jnp.asarray(states).astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    lead = (None,) * (x.ndim - 2)
    return (x - centre[lead]) / spread[lead]


def near(phi: PyTree, asking: Keys, held: Keys) -> Near:
    """How near keys are to those of edits, as `Scope` has it."""

    def logit(name: str, a: Array, b: Array) -> Array:
        steep = jnp.exp(jax.lax.stop_gradient(phi["steep"][name]))
        return steep * (a @ b.T - phi["threshold"][name])

    return Near(*map(logit, Keys._fields, asking, held))


def times(x: Float[Array, "*at d_in"], kernel: Float[Array, "d_in d_out"]) -> Array:
    """x @ kernel in float32; of kernels in bfloat16, in which they are trained, x in it too."""
    if kernel.dtype == jnp.bfloat16:
        return products.forward(x.astype(kernel.dtype), kernel, kernel.dtype).astype(jnp.float32)
    return x @ kernel


def unit(x: Float[Array, "*at d"]) -> Float[Array, "*at d"]:
    """Of unit length."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
