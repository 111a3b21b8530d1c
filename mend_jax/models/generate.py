"""Decoding over a key-value cache, as one pure function that can be edited and jitted."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from mend_jax.models.stages import Inputs

LOST = -1
"""In place of a token, where a model says nothing: its logits are not numbers."""


def prediction(logits: Float[Array, "*batch vocabulary"]) -> Int[Array, "*batch"]:
    """The argmax, or LOST."""
    lost = jnp.isnan(jnp.max(logits, axis=-1))
    return jnp.where(lost, LOST, jnp.argmax(logits, axis=-1)).astype(jnp.int32)


class Choice(NamedTuple):
    """How the next token is chosen.

    begin(text[k, length], lengths[k], new) -> state, of the texts that are gone on with.
    pick(state, logits[k, 1, v]) -> (state, token[k, 1]).
    """

    begin: Callable[[Int[Array, "k length"], Int[Array, "k"], int], PyTree]
    pick: Callable[[PyTree, Float[Array, "k 1 v"]], tuple[PyTree, Int[Array, "k 1"]]]


def most_likely() -> Choice:
    """Greedy decoding."""
    return Choice(
        lambda text, lengths, new: (),
        lambda state, logits: (state, prediction(logits)),
    )


def sampled(key: Key[Array, ""], temperature: float = 1.0, penalty: float = 1.0) -> Choice:
    """A draw from softmax(logits / temperature), what stood before being less likely.

    Args:
      penalty: divides the positive logits of tokens that the text holds already, and multiplies
        the negative ones (Keskar et al. 2019, CTRL, section 4.1).
    """

    def begin(text: Int[Array, "k length"], lengths: Int[Array, "k"], new: int) -> PyTree:
        k, length = text.shape
        inside = jnp.arange(length + new)[None] < lengths[:, None]
        room = jnp.zeros((k, new), jnp.int32)
        said = jnp.where(inside, jnp.concatenate([text, room], axis=1), text[:, :1])
        return key, said, jnp.int32(length)

    def pick(state: PyTree, logits: Float[Array, "k 1 v"]) -> tuple[PyTree, Int[Array, "k 1"]]:
        key, said, n = state
        key, now = jax.random.split(key)
        scores = logits[:, 0].astype(jnp.float32)
        old = jnp.take_along_axis(scores, said, axis=1)
        rows = jnp.arange(len(said))[:, None]
        scores = scores.at[rows, said].set(jnp.where(old > 0, old / penalty, old * penalty))
        drawn = jax.random.categorical(now, scores / temperature)
        token = jnp.where(prediction(scores) == LOST, LOST, drawn)[:, None].astype(jnp.int32)
        return (key, jax.lax.dynamic_update_slice(said, token, (0, n)), n + 1), token

    return Choice(begin, pick)


def _forced(
    config: Any, new: int
) -> Callable[[Float[Array, "k 1 v"], Int[Array, ""]], Float[Array, "k 1 v"]]:
    """force(logits of a token, how many were said before it): 0 for the token that the model's
    config wants first or last, whatever the text, and -inf for all others there."""
    wanted = {
        0: getattr(config, "forced_bos_token_id", None),
        new - 1: getattr(config, "forced_eos_token_id", None),
    }

    def force(logits: Float[Array, "k 1 v"], said: Int[Array, ""]) -> Float[Array, "k 1 v"]:
        for place, token in wanted.items():
            if token is not None:
                only = jnp.where(jnp.arange(logits.shape[-1]) == token, 0.0, -jnp.inf)
                logits = jnp.where(said == place, only, logits)
        return logits

    return force


def generate(
    model: nn.Module,
    params: PyTree,
    tokens: Int[Array | np.ndarray, "k length"],
    lengths: Int[Array | np.ndarray, "k"],
    new: int,
    choice: Choice = most_likely(),
) -> Int[Array, "k new"]:
    """The continuation of a prompt, or answer to a source, token by token.

    Args:
      model: a causal language model or an encoder-decoder, with a `cache_length` field.
      tokens: prompts or sources, padded to the right.
      lengths: their true lengths.
      new: how many tokens to say; where the model ended its text earlier, what follows is noise,
        and LOST once its logits are not numbers.
      choice: what to say next; by default the most likely.
    """
    tokens, lengths = jnp.asarray(tokens), jnp.asarray(lengths)
    k, length = tokens.shape
    force = _forced(getattr(model, "config", None), new)
    zeros = jnp.zeros((k, 1), jnp.int32)
    if getattr(model, "kind", "causal") == "seq2seq":
        decoder: Any = model.clone(start=model.decoding, cache_length=new)
        encoder: Any = model.clone(stop=model.decoding)
        source = Inputs(tokens, mask=jnp.arange(length)[None] < lengths[:, None])
        states = encoder.apply({"params": params}, source)
        begun = zeros + model.config.decoder_start_token_id
        first = states._replace(target=begun, positions=zeros)
        state, position = choice.begin(begun, jnp.ones(k, jnp.int32), new), zeros + 1

        def following(token: Int[Array, "k 1"], position: Int[Array, "k 1"]) -> Inputs:
            return states._replace(target=token, positions=position)
    else:
        decoder = model.clone(cache_length=length + new)
        first, position = Inputs(tokens, lengths[:, None] - 1), lengths[:, None]
        state = choice.begin(tokens, lengths, new)

        def following(token: Int[Array, "k 1"], position: Int[Array, "k 1"]) -> Inputs:
            return Inputs(token, zeros, position)

    def run(
        cache: PyTree, state: PyTree, inputs: Inputs, said: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Array]:
        logits, cache = decoder.apply({"params": params, **cache}, inputs, mutable=["cache"])
        return dict(cache), *choice.pick(state, force(logits, said))

    def step(carry: tuple[Any, ...], said: Int[Array, ""]) -> tuple[tuple[Any, ...], Array]:
        cache, state, token, position = carry
        cache, state, next_token = run(cache, state, following(token, position), said)
        return (cache, state, next_token, position + 1), token[:, 0]

    cache, state, token = run({}, state, first, jnp.int32(0))
    carry = cache, state, token, position
    _, out = jax.lax.scan(step, carry, jnp.arange(1, new + 1, dtype=jnp.int32))
    return out.T
