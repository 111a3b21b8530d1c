"""Greedy decoding: the cache changes nothing, and edits reach every pass."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
from conftest import Tiny

import mend_jax as mj
from mend_jax.models.generate import LOST, generate, most_likely, sampled
from mend_jax.models.stages import Inputs

LENGTHS = (3, 6, 1)
NEW = 5


def prompts() -> tuple[jax.Array, jax.Array]:
    """Padded with a token that also means something."""
    tokens = np.random.default_rng(2).integers(61, size=(3, max(LENGTHS))).astype(np.int32)
    return jnp.asarray(tokens), jnp.asarray(LENGTHS, jnp.int32)


def test_the_cache_gives_what_full_passes_give(tiny: Tiny):
    tokens, lengths = prompts()
    out = jax.jit(partial(generate, tiny.model, new=NEW))(tiny.params, tokens, lengths)
    assert out.shape == (3, NEW) and out.dtype == jnp.int32

    @jax.jit
    def following(text: jax.Array, last: jax.Array) -> jax.Array:
        logits = tiny.model.apply({"params": tiny.params}, Inputs(text, last[:, None]))
        return jnp.argmax(logits[:, 0], axis=-1)

    text = np.zeros((3, max(LENGTHS) + NEW), np.int32)
    text[:, : max(LENGTHS)] = tokens
    ends = np.array(LENGTHS)
    wanted = []
    for _ in range(NEW):
        wanted.append(np.asarray(following(jnp.asarray(text), jnp.asarray(ends - 1))))
        text[np.arange(3), ends] = wanted[-1]
        ends += 1
    np.testing.assert_array_equal(out, np.stack(wanted, axis=1))
    assert len(np.unique(out)) > 3  # not one token over and over


def test_texts_of_one_shape_are_one_program(tiny: Tiny):
    tokens, lengths = prompts()
    counted = chex.assert_max_traces(generate, n=1)
    decode = jax.jit(partial(counted, tiny.model, new=NEW))
    decode(tiny.params, tokens, lengths)
    decode(tiny.params, tokens[::-1], lengths[::-1])


def test_an_edited_model_generates_as_a_merged_one(tiny: Tiny):
    tokens, lengths = prompts()
    rng = np.random.default_rng(3)
    u, delta = (rng.standard_normal((4, d)).astype(np.float32) for d in (46, 24))
    edit = {"layers_1/mlp/down_proj": mj.Factors(jnp.asarray(u), jnp.asarray(delta))}
    decode = partial(generate, tiny.model, new=NEW)
    base = jax.jit(decode)(tiny.params, tokens, lengths)
    merged = jax.jit(decode)(mj.merge(tiny.params, edit), tokens, lengths)
    edited = jax.jit(mj.edited(decode, edit))(tiny.params, tokens, lengths)
    np.testing.assert_array_equal(edited, merged)
    assert np.any(edited != base)


def test_a_model_without_numbers_says_nothing(tiny: Tiny):
    tokens, lengths = prompts()
    ruined = jax.tree.map(lambda x: x * jnp.nan, tiny.params)
    for choice in (most_likely(), sampled(jax.random.key(0))):
        out = jax.jit(partial(generate, tiny.model, new=2, choice=choice))(ruined, tokens, lengths)
        np.testing.assert_array_equal(out, LOST)


def test_a_cold_draw_is_the_most_likely_and_a_key_decides_a_warm_one(tiny: Tiny):
    tokens, lengths = prompts()

    @partial(jax.jit, static_argnames=("temperature", "penalty"))
    def draw(key: jax.Array, temperature: float, penalty: float = 1.0) -> jax.Array:
        choice = sampled(key, temperature, penalty)
        return generate(tiny.model, tiny.params, tokens, lengths, NEW, choice)

    greedy = jax.jit(partial(generate, tiny.model, new=NEW))(tiny.params, tokens, lengths)
    first, second = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(draw(first, 1e-6), greedy)
    np.testing.assert_array_equal(draw(first, 1.2), draw(first, 1.2))
    assert np.any(draw(first, 1.2) != draw(second, 1.2))


def test_a_penalty_keeps_from_saying_anything_twice():
    """Logits 2, 1, -1, -2: what was said is divided or multiplied, in whatever order it stood."""
    choice = sampled(jax.random.key(0), temperature=1e-6, penalty=5.0)
    logits = jnp.array([[[2.0, 1.0, -1.0, -2.0]]])
    state = choice.begin(jnp.array([[3, 1]]), jnp.array([1]), 5)  # the 1 is padding
    said = []
    for _ in range(5):
        state, token = choice.pick(state, logits)
        said.append(int(token[0, 0]))
    assert said == [0, 1, 0, 0, 0]  # 2; then 1 before 2/5; then 2/5 before 1/5
