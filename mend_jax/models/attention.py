"""Attention by heads: the sum itself, its masks, its cache, and the four linear layers around it.

    out_r = sum_s softmax_s(scale q_r . k_s + bias_rs) v_s      over the keys s that r may see
"""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from mend_jax.models.layers import Linear, capped


class Scoring(NamedTuple):
    """How like a query a key is. scale: of their product, 1/sqrt(width) if None. cap: what scores
    do not go beyond, cap tanh(score / cap); None: there is no such bound."""

    scale: float | None = None
    cap: float | None = None


def attention(
    query: Float[Array, "k queries heads d"],
    key: Float[Array, "k keys kv_heads d"],
    value: Float[Array, "k keys kv_heads d"],
    mask: Bool[Array, "k #queries keys"] | None = None,
    bias: Float[Array, "#k #heads #queries #keys"] | None = None,
    scoring: Scoring = Scoring(),
) -> Float[Array, "k queries heads_d"]:
    """Softmax attention with grouped heads, softmax in float32.

    Args:
      mask: which keys a query sees. bias: added to the scores (heads not grouped).
    """
    k, queries, heads, d = query.shape
    # heads before positions, as the products want them: a GPU's compiler makes fewer kernels so
    query, key, value = (jnp.moveaxis(x, 2, 1) for x in (query, key, value))
    kv_heads = key.shape[1]
    grouped = query.reshape(k, kv_heads, heads // kv_heads, queries, d)
    scores = jnp.einsum("khgqd,khsd->khgqs", grouped, key.astype(query.dtype))
    scores = scores.astype(jnp.float32)
    scores = capped(scores * (d**-0.5 if scoring.scale is None else scoring.scale), scoring.cap)
    if bias is not None:
        scores = scores + bias[:, :, None]
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    out = jnp.einsum("khgqs,khsd->khgqd", weights, value).reshape(k, heads, queries, d)
    return jnp.moveaxis(out, 1, 2).reshape(k, queries, heads * d)


def everything_before(
    asking: Int[Array, "k queries"], keys: Int[Array, "#k keys"]
) -> Bool[Array, "k queries keys"]:
    """The causal mask: a position sees itself and those before it."""
    return keys[:, None, :] <= asking[:, :, None]


def rotary(
    x: Float[Array, "k length heads d"],
    positions: Int[Array, "k length"],
    frequencies: Float[Array, "pairs"],
    magnitude: float = 1.0,
) -> Float[Array, "k length heads d"]:
    """Rotary position embedding, halves convention: (a, b) -> (a cos - b sin, b cos + a sin).

    Args:
      frequencies: of the pairs; the features beyond them stay as they are.
      magnitude: of the turned features (YaRN, arXiv 2309.00071, makes them longer).
    """
    pairs = len(frequencies)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None]
    cos, sin = jnp.cos(angles) * magnitude, jnp.sin(angles) * magnitude
    a, b = (x[..., i * pairs : (i + 1) * pairs].astype(jnp.float32) for i in (0, 1))
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
    return jnp.concatenate([turned, x[..., 2 * pairs :]], axis=-1)


def split_heads(x: Float[Array, "k length d"], heads: int) -> Float[Array, "k length heads hd"]:
    """The features of each head apart."""
    return x.reshape(*x.shape[:2], heads, -1)


class Cache(nn.Module):
    """Keys and values written at their own positions, so that right-padded prompts may differ.

    A padded position holds rubbish until decoding overwrites it; the causal mask hides it until
    then, since it lies in the future of every query.
    """

    length: int

    @nn.compact
    def __call__(self, new: Shaped[Array, "k n h d"], positions: Int[Array, "k n"]) -> Array:
        shape = (new.shape[0], self.length, *new.shape[2:])
        store = self.variable("cache", "values", jnp.zeros, shape, new.dtype)
        rows = jnp.arange(new.shape[0])[:, None]
        store.value = store.value.at[rows, positions].set(new)
        return store.value


class Heads(NamedTuple):
    """Of an attention. queries, keys: how many heads (those of the keys serve groups of the
    queries'); width: features of one."""

    queries: int
    keys: int
    width: int


def heads_alike(count: int, features: int) -> Heads:
    """So many heads of keys as of queries, which share the model's features."""
    return Heads(count, count, features // count)


class Attention(nn.Module):
    """The four linear layers of an attention, and its cache; a subclass says who attends to whom.

    A family says its `heads`, and in which `names`, `linear` layers or `scoring` it differs.

    Args:
      cache_length: with more than 0, keys and values are kept in the collection `cache`.
    """

    config: Any
    dtype: Any
    cache_length: int = 0

    names: ClassVar[tuple[str, str, str, str]] = ("q_proj", "k_proj", "v_proj", "out_proj")

    @property
    def heads(self) -> Heads:
        """How many, and how wide."""
        raise NotImplementedError

    @property
    def scoring(self) -> Scoring:
        """By 1/sqrt(width)."""
        return Scoring()

    def linear(self, name: str, features: int) -> nn.Module:
        """The layer of this name."""
        return Linear(features, dtype=self.dtype, name=name)

    def queries(self, x: Float[Array, "k queries d"]) -> Float[Array, "k queries heads hd"]:
        """What the positions x ask."""
        heads = self.heads
        query = self.linear(self.names[0], heads.queries * heads.width)(x)
        return split_heads(query, heads.queries)

    def keys_values(self, x: Float[Array, "k keys d"]) -> tuple[Array, Array]:
        """What the positions x are known by, and what they say: both [k, keys, heads, width]."""
        heads = self.heads
        key, value = (self.linear(n, heads.keys * heads.width)(x) for n in self.names[1:3])
        return split_heads(key, heads.keys), split_heads(value, heads.keys)

    def remember(
        self, key: Array, value: Array, positions: Int[Array, "k n"]
    ) -> tuple[Array, Array]:
        """With a cache: all keys and values that were seen, the new ones written to `positions`."""
        if not self.cache_length:
            return key, value
        key = Cache(self.cache_length, name="key_cache")(key, positions)
        return key, Cache(self.cache_length, name="value_cache")(value, positions)

    def output(self, x: Float[Array, "k queries hd"], width: int) -> Float[Array, "k queries d"]:
        """What the heads say together, as features of the model."""
        return self.linear(self.names[3], width)(x)
