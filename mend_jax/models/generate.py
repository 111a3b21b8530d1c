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
    """The most likely continuation of a prompt, or answer to a source, token by token.

    Args:
      model: a causal language model or an encoder-decoder, with a `cache_length` field.
      tokens: prompts or sources, padded to the right.
      lengths: their true lengths.
      new: how many tokens to say; where the model ended its text earlier, what follows is noise.
    """
    k, length = tokens.shape
    zeros = jnp.zeros((k, 1), jnp.int32)
    if getattr(model, "kind", "causal") == "seq2seq":
        decoder: Any = model.clone(start=model.decoding, cache_length=new)
        encoder: Any = model.clone(stop=model.decoding)
        source = Inputs(tokens, mask=jnp.arange(length) < lengths[:, None])
        states = encoder.apply({"params": params}, source)
        first = states._replace(target=zeros + model.config.decoder_start_token_id, positions=zeros)
        position = zeros + 1

        def following(token: Int[Array, "k 1"], position: Int[Array, "k 1"]) -> Inputs:
            return states._replace(target=token, positions=position)
    else:
        decoder = model.clone(cache_length=length + new)
        first, position = Inputs(tokens, lengths[:, None] - 1), lengths[:, None]

        def following(token: Int[Array, "k 1"], position: Int[Array, "k 1"]) -> Inputs:
            return Inputs(token, zeros, position)

    def run(cache: PyTree, inputs: Inputs) -> tuple[PyTree, Int[Array, "k 1"]]:
        logits, state = decoder.apply({"params": params, **cache}, inputs, mutable=["cache"])
        return dict(state), jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def step(carry: tuple[Any, Array, Array], _: None) -> tuple[tuple[Any, Array, Array], Array]:
        cache, token, position = carry
        cache, next_token = run(cache, following(token, position))
        return (cache, next_token, position + 1), token[:, 0]

    cache, token = run({}, first)
    _, out = jax.lax.scan(step, (cache, token, position), None, length=new)
    return out.T
