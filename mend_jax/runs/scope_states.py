"""The states of the texts that a scope learns from, as the base makes them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mend_jax.data.scope_texts import States
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.trunk_cache import TrunkCache, cache_trunk
from mend_jax.models.registry import Base
from mend_jax.products import narrow_dtype
from mend_jax.training.scope import SAMPLE


def narrowed(base: Base) -> Base:
    """The base in the dtype in which it writes and reads what a scope learns from: bfloat16, if the
    device multiplies it. There is much to read, and to what is like an edit rounding makes no
    difference."""
    if (dtype := narrow_dtype()) == jnp.float32:
        return base

    def narrow(x: jax.Array) -> jax.Array:
        return x.astype(dtype) if x.dtype == jnp.float32 else x

    model = base.model.clone(dtype=dtype)
    return base._replace(model=model, params=jax.tree.map(narrow, base.params))


def states_of(
    base: Base,
    stages: tuple[int, ...],
    texts: Sequence[Int[np.ndarray, "_"]],
    known: TrunkCache | None = None,
) -> States:
    """The states that a scope reads, of all texts; those of `known` are not made again."""
    new = [tokens for tokens in texts if known is None or tokens not in known]
    if not new and known is not None:
        return known.states
    below: Any = base.model.clone(stop=stages[-1], keep=stages[:-1])  # the last are its outputs
    made = cache_trunk(below, base.params, new, dtype=jnp.bfloat16)

    def states(tokens: Int[np.ndarray, "_"]) -> Float[np.ndarray, "_ kept d"]:
        if known is not None and tokens in known:
            return known.states(tokens)
        return np.concatenate([made.states(tokens), made.lookup(tokens)[:, None]], axis=1)

    return states


def sample_of(
    states: States, records: Sequence[TokenRecord], seed: int
) -> Float[np.ndarray, "_ kept d"]:
    """States of some positions."""
    texts = [pair.tokens for r in records for pair in r.outer]
    found: list[np.ndarray] = []
    for i in np.random.default_rng((seed, 4)).permutation(len(texts)):
        if sum(map(len, found)) >= SAMPLE:
            break
        found.append(states(texts[i]))
    return np.concatenate(found)[:SAMPLE]
