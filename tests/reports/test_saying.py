"""A base in two parts edits and speaks as the whole one; of its trunk, one block is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close
from tiny_run import some_records

import mend_jax as mj
from mend_jax.data.decoding import pad_prompts
from mend_jax.evaluation.generation import speak_of
from mend_jax.models.alike import _run
from mend_jax.models.generate import LOST
from mend_jax.opened import opened
from mend_jax.reports.before_after import edit_example
from mend_jax.reports.saying import never, sayer
from mend_jax.saved.directory import SavedEditor
from mend_jax.saved.parts import entered, trunk_of

pytest_plugins = ["scoped_run"]

NEW = 5


@pytest.fixture(scope="module")
def texts(scoped_editor: SavedEditor) -> Any:
    """Prompts of several lengths, padded."""
    codec = mj.codec_of(scoped_editor.base)
    prompts = ["Person 24 lives in", "Person 25", "It is said that Person 26 lives in"]
    return pad_prompts([codec.prompt(prompt) for prompt in prompts])


def whole(saved: SavedEditor, params: Any, held: Any, texts: Any) -> np.ndarray:
    """In one program."""
    speak = speak_of(saved.base.model, NEW)
    program = jax.jit(lambda s, p, e, *asked: saved.editor.apply(s, speak, e)(p, *asked))
    return np.asarray(program(saved.state, params, held, *texts))


def test_an_edit_is_that_of_the_whole_base(scoped_editor: SavedEditor):
    trunk, params = trunk_of(scoped_editor), scoped_editor.base.params
    assert trunk is not None and trunk.stop > 1
    example = edit_example(scoped_editor.base, "Person 24 lives in", "Paris")
    make = jax.jit(scoped_editor.editor.edit)
    wanted = make(scoped_editor.state, params, example)
    found = make(scoped_editor.state, params, entered(trunk, params, example))
    assert_close(found.kept.keys, wanted.kept.keys, 1e-4)
    assert_close(found.kept.rows, wanted.kept.rows, 2e-3)  # two units of float16
    np.testing.assert_array_equal(found.kept.target, wanted.kept.target)


def test_words_are_those_of_the_whole_base(scoped_editor: SavedEditor, texts: Any):
    model = opened(scoped_editor)
    edited = mj.tell_records(model, some_records(24, 3))
    say, params = sayer(scoped_editor, NEW), scoped_editor.base.params
    for held in (model.held, edited.held):
        found = say(scoped_editor.state, params, held, *texts)
        np.testing.assert_array_equal(found, whole(scoped_editor, params, held, texts))
    assert np.any(found != say(scoped_editor.state, params, model.held, *texts))


def test_what_is_enough_is_not_gone_on_with(scoped_editor: SavedEditor, texts: Any):
    held, heard = opened(scoped_editor).held, list[np.ndarray]()
    asked = scoped_editor.state, scoped_editor.base.params, held, *texts

    def enough(said: np.ndarray) -> bool:
        heard.append(said)
        return said.shape[1] == 2

    found, every = (sayer(scoped_editor, NEW)(*asked, enough=x) for x in (enough, never))
    np.testing.assert_array_equal(found[:, :2], every[:, :2])
    assert found.shape == every.shape and np.all(found[:, 2:] == LOST)
    assert len(heard) == 2 and np.all(every != LOST)


def test_a_base_without_numbers_says_nothing(scoped_editor: SavedEditor, texts: Any):
    ruined = jax.tree.map(lambda x: x * jnp.nan, scoped_editor.base.params)
    held = opened(scoped_editor).held
    found = sayer(scoped_editor, NEW)(scoped_editor.state, ruined, held, *texts)
    np.testing.assert_array_equal(found, LOST)
    np.testing.assert_array_equal(found, whole(scoped_editor, ruined, held, texts))


def test_one_block_is_compiled(scoped_editor: SavedEditor, texts: Any):
    say, held = sayer(scoped_editor, NEW + 1), opened(scoped_editor).held
    before = _run._cache_size()
    for _ in range(2):
        say(scoped_editor.state, scoped_editor.base.params, held, *texts)
    assert _run._cache_size() - before == 2  # for a text, and for a token after it
