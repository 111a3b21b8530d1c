"""Editing in context is the model on one text: the edits, then the question."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, assert_equal
from conftest import Tiny
from tiny_run import Files

import mend_jax as mj
from mend_jax.data.batches import edit_examples, shapes_of_edits
from mend_jax.data.codec import codec_of
from mend_jax.data.encoding import Tokens, marks_around
from mend_jax.data.writable import UnwritableError, encode_piece
from mend_jax.editors.base import EditorState
from mend_jax.editors.in_context import in_context
from mend_jax.models.generate import generate
from mend_jax.models.stages import run_trunk
from mend_jax.models.t5 import T5, T5Config
from mend_jax.objectives import outputs_of

pytest_plugins = ["finished_run"]

AFTER, MARK, END = (7, 8), 3, 1
NOTHING = EditorState({}, {})


def causal(rng: np.random.Generator, prompt: int, answers: int) -> Tokens:
    """A pair that begins with the mark."""
    whole = np.asarray([MARK, *rng.integers(9, 61, prompt + answers)], np.int32)
    read = np.arange(prompt, prompt + answers, dtype=np.int32)
    return Tokens(whole[:-1], read, whole[prompt + 1 :])


def whole(pair: Tokens) -> list[int]:
    return [*pair.tokens.tolist(), int(pair.labels[-1])]


def example_of(pairs: list[Tokens]) -> mj.Example:
    """As one edit: all axes but the first."""
    return jax.tree.map(lambda x: jnp.asarray(x[0]), edit_examples([pairs], shapes_of_edits(pairs)))


@pytest.mark.parametrize("k", [1, 2])
def test_it_equals_the_model_on_the_whole_text(tiny: Tiny, k: int):
    """Also of a batch of questions of other lengths, in which none sees who stands beside it."""
    rng = np.random.default_rng(k)
    edits = [causal(rng, 3 + i, 2 + i) for i in range(k)]
    asked = [causal(rng, n, a) for n, a in ((6, 1), (2, 3), (4, 2))]
    outputs = outputs_of(tiny.model)
    editor = in_context(outputs, after=AFTER, marks=(1, 0))
    edit = jax.jit(editor.edit)(NOTHING, tiny.params, example_of(edits))
    pair = example_of(asked).edit
    said = jax.jit(editor.apply(NOTHING, outputs.logits, edit))(tiny.params, pair)
    speak = jax.jit(lambda params, text: tiny.model.apply({"params": params}, mj.Inputs(text)))
    for row, question in zip(said, asked, strict=True):
        before = [MARK, *(t for one in edits for t in (*whole(one)[1:], *AFTER))]
        text = np.zeros((2, 40), np.int32)  # alone, with the edits and without
        for line, tokens in zip(text, (before + whole(question)[1:], whole(question)), strict=True):
            line[: len(tokens)] = tokens
        found = np.asarray(speak(tiny.params, text))
        wanted, bare = found[0][question.read + len(before) - 1], found[1][question.read]
        assert_close(row[: len(question.labels)], wanted, 1e-5)
        assert np.max(np.abs(bare - wanted)) > 1e-2


def test_what_is_said_after_the_text_is_said_after_the_edit(tiny: Tiny):
    rng = np.random.default_rng(5)
    edit, asked = causal(rng, 3, 2), [causal(rng, n, 1) for n in (6, 2)]
    editor = in_context(outputs_of(tiny.model), after=AFTER, marks=(1, 0))
    made = jax.jit(editor.edit)(NOTHING, tiny.params, example_of([edit]))
    speak = partial(generate, tiny.model, new=4)
    tokens, lengths = np.zeros((2, 9), np.int32), np.asarray([7, 3], np.int32)
    for row, question in zip(tokens, asked, strict=True):
        row[: len(question.tokens)] = question.tokens
    said = jax.jit(editor.apply(NOTHING, speak, made))(tiny.params, tokens, lengths)
    for got, question in zip(said, asked, strict=True):
        text = np.asarray([[*whole(edit), *AFTER, *question.tokens[1:]]], np.int32)
        wanted = jax.jit(speak)(tiny.params, text, np.asarray([text.shape[1]], np.int32))
        assert_equal(got, wanted[0])


def test_of_an_encoder_decoder_the_text_is_in_the_source():
    model = T5(T5Config(61, 12, 3, 16, 1, 1, 2))
    params = model.init(jax.random.key(0), model.example_inputs())["params"]
    outputs, rng = outputs_of(model), np.random.default_rng(1)

    def pair(source: int, answers: int) -> Tokens:
        """A source and an answer, each with its end."""
        tokens = np.asarray([*rng.integers(9, 61, source), END], np.int32)
        answer = rng.integers(9, 61, answers)
        decoder = np.asarray([0, *answer], np.int32)
        labels = np.asarray([*answer, END], np.int32)
        return Tokens(tokens, np.arange(answers + 1, dtype=np.int32), labels, decoder)

    edit, asked = pair(4, 2), [pair(3, 1), pair(6, 3)]
    editor = in_context(outputs, after=AFTER, marks=(0, 1))
    made = jax.jit(editor.edit)(NOTHING, params, example_of([edit]))
    said = jax.jit(editor.apply(NOTHING, outputs.logits, made))(params, example_of(asked).edit)
    speak = partial(generate, model, new=4)
    for row, question in zip(said, asked, strict=True):
        source = [*edit.tokens[:-1], *edit.labels[:-1], *AFTER, *question.tokens]
        text = np.asarray([source], np.int32)
        inputs = mj.Inputs(text, mask=np.ones(text.shape, bool), target=question.target[None])
        wanted = jax.jit(outputs.logits)(params, mj.Pair(inputs, question.labels[None]))[0]
        assert_close(row[: len(question.labels)], wanted, 1e-5)
        lengths = np.asarray([len(question.tokens)], np.int32)
        spoken = jax.jit(editor.apply(NOTHING, speak, made))(params, question.tokens[None], lengths)
        alone = jax.jit(speak)(params, text, np.asarray([text.shape[1]], np.int32))
        assert_equal(spoken, alone)


def test_the_tokens_are_those_of_the_text(tiny_files: Files):
    """With a tokenizer that writes every line for itself."""
    base = mj.load(str(tiny_files.model))
    codec = codec_of(base)
    after, marks = encode_piece(base.tokenizer, ".\n"), marks_around(base.tokenizer)
    assert marks == (0, 0) and codec.words(after) == "."
    editor = in_context(outputs_of(base.model), after=after, marks=marks)
    example = example_of([codec.pair("Person 3 lives in", "Lima")])
    made = jax.jit(editor.edit)(NOTHING, base.params, example)
    text = np.asarray(made.tokens)[: int(jnp.sum(made.counts))].tolist()
    assert text + codec.prompt("Person 3 lives in") == codec.prompt(
        "Person 3 lives in Lima.\nPerson 3 lives in"
    )


def test_a_separator_that_cannot_be_written():
    from words import words

    with pytest.raises(UnwritableError, match=r"no tokens for '.' in '.\\n'"):
        encode_piece(words(), ".\n")
    assert marks_around(words(begin=True)) == (1, 0)


def test_what_it_is_not_for(tiny: Tiny):
    outputs = outputs_of(tiny.model)
    with pytest.raises(ValueError, match="not for a 'classifier' model"):
        in_context(outputs._replace(kind="classifier"))
    trunk, tail = mj.split(tiny.model, r"layers_2/mlp/.*")
    pair = example_of([causal(np.random.default_rng(0), 3, 2)]).edit
    states = pair._replace(inputs=run_trunk(trunk, tiny.params, pair.inputs))
    editor = in_context(outputs_of(tail, trunk))
    example: Any = mj.Example(states, states, states)
    with pytest.raises(ValueError, match="it needs the whole base"):
        editor.init(jax.random.key(0), tiny.params, example)
