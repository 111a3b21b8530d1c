"""Greedy decoding over a key-value cache, as one pure function that can be edited and jitted."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from mend_jax.models.stages import Inputs


def generate(
    model: nn.Module,
    params: PyTree,
    tokens: Int[Array, "k length"],
    lengths: Int[Array, "k"],
    new: int,
) -> Int[Array, "k new"]:
    """The most likely continuation, token by token, of prompts of different lengths.

    Args:
      model: a causal language model with a `cache_length` field.
      tokens: prompts, padded to the right.
      lengths: their true lengths.
      new: how many tokens to add; where the model ended its text earlier, what follows is noise.
    """
    k, length = tokens.shape
    decoder = model.clone(cache_length=length + new)

    def run(cache: PyTree, inputs: Inputs) -> tuple[PyTree, Int[Array, "k"]]:
        logits, state = decoder.apply({"params": params, **cache}, inputs, mutable=["cache"])
        return dict(state), jnp.argmax(logits[:, 0], axis=-1).astype(jnp.int32)

    cache, first = run({}, Inputs(tokens, lengths[:, None] - 1))

    def step(carry: tuple[Any, Array, Array], _: None) -> tuple[tuple[Any, Array, Array], Array]:
        cache, token, position = carry
        inputs = Inputs(token[:, None], jnp.zeros((k, 1), jnp.int32), position[:, None])
        cache, following = run(cache, inputs)
        return (cache, following, position + 1), token

    _, out = jax.lax.scan(step, (cache, first, lengths), None, length=new)
    return out.T
