"""Texts that are read in pieces, and the model's own words, under held edits: as in full passes."""

from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close
from conftest import Tiny
from scoped_setting import made_of

import mend_jax as mj
from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.scoped import holding, scoped
from mend_jax.example import Pair
from mend_jax.models.generate import generate
from mend_jax.scopes.network import two_keys

STAGES = (1, 2)
SITES = r"layers_2/mlp/(up|down)_proj"
LENGTHS = (5, 3, 4, 5)
NEW = 4


class Made(NamedTuple):
    """A model that keeps states, an editor with a scope, and three edits of the first prompts."""

    model: Any
    editor: Editor
    state: EditorState
    texts: np.ndarray
    answers: np.ndarray
    held: Any


@pytest.fixture(scope="module")
def made(tiny: Tiny) -> Made:
    """Prompts of several lengths, padded on the right; targets of three tokens."""
    model = tiny.model.clone(keep=STAGES)
    outputs = mj.outputs_of(model)
    scope = two_keys(STAGES, heads=2, width=4, subject=16, relation=16, hidden=8)
    mend = mj.gradient_editor(outputs.loss, SITES, mj.chain(mj.rate(3.0)))
    late = [f"layers_2/mlp/{name}_proj" for name in ("up", "down")]
    editor = scoped(mend, scope, outputs.logits, late, rows=8)
    rng = np.random.default_rng(0)
    texts = rng.integers(0, 61, (4, 5)).astype(np.int32)
    answers = rng.integers(0, 61, (3, 3)).astype(np.int32)

    def edit_of(i: int) -> Pair:
        n = LENGTHS[i]
        x = np.zeros((1, 8), np.int32)
        x[0, : n + 2] = [*texts[i, :n], *answers[i, :2]]
        read = np.asarray([[n - 1, n, n + 1]], np.int32)
        return Pair(mj.Inputs(x, read), answers[i : i + 1])

    pairs = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *map(edit_of, range(3)))
    state, kept = made_of(editor, tiny.params, pairs, near=0.999)
    return Made(model, editor, state, texts, answers, holding().hold(kept, 4))


def test_decoding_with_a_cache_is_full_passes(tiny: Tiny, made: Made):
    model, editor, state, texts, answers, held = made
    lengths = np.asarray(LENGTHS, np.int32)
    logits = mj.sequence_logits(model)

    @jax.jit
    def speak(held: object, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        said = lambda params, x, n: generate(model, params, x, n, NEW)  # noqa: E731
        return editor.apply(state, said, held)(tiny.params, tokens, lengths)

    @jax.jit
    def following(held: object, text: jax.Array, last: jax.Array) -> jax.Array:
        pair = Pair(mj.Inputs(text, last[:, None]), None)
        return jnp.argmax(editor.apply(state, logits, held)(tiny.params, pair)[:, 0], -1)

    got = np.asarray(speak(held, jnp.asarray(texts), jnp.asarray(lengths)))
    assert np.sum(got[:3, :3] == answers) >= 7  # the edits are said, if not to the last token
    text = np.zeros((4, 5 + NEW), np.int32)
    text[:, :5] = texts
    for step in range(NEW):
        ends = lengths + step
        wanted = np.asarray(following(held, jnp.asarray(text), jnp.asarray(ends - 1)))
        np.testing.assert_array_equal(got[:, step], wanted)
        text[np.arange(4), ends] = wanted
    none = speak(holding().remove(held, 0), jnp.asarray(texts), jnp.asarray(lengths))
    assert np.any(none[0] != got[0]) and np.array_equal(none[1:], got[1:])


@pytest.mark.parametrize("cuts", [(6,), (4, 5, 7), (1, 5, 6, 7, 8)])
def test_any_split_of_a_text_is_one_pass(tiny: Tiny, made: Made, cuts: tuple[int, ...]):
    """Before an edit's prompt ends, and while its target is said; other text follows."""
    model, editor, state, texts, answers, held = made
    text = jnp.asarray([[*texts[i], *answers[0], *texts[1, :3]] for i in (0, 3)])
    length = text.shape[1]
    decoder = model.clone(cache_length=length + 1)

    def in_pieces(params: Any, text: jax.Array) -> jax.Array:
        cache: Any = {}
        found = []
        for begin, end in pairwise((0, *cuts, length)):
            at = jnp.broadcast_to(jnp.arange(begin, end), (len(text), end - begin))
            said, cache = decoder.apply(
                {"params": params, **cache}, mj.Inputs(text[:, begin:end], None, at),
                mutable=["cache"],
            )  # fmt: skip
            found.append(said)
        return jnp.concatenate(found, axis=1)

    def whole(params: Any, text: jax.Array) -> Any:
        return model.apply({"params": params}, mj.Inputs(text))

    got, wanted = (
        jax.jit(editor.apply(state, f, held))(tiny.params, text) for f in (in_pieces, whole)
    )
    assert_close(got, wanted, 1e-5)
    moved = np.max(np.abs(wanted - whole(tiny.params, text)), axis=-1) > 1e-3
    assert moved[0, 4:7].all() and not moved[0, :4].any() and not moved[1, :8].any()
