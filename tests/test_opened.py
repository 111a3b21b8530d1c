"""A model is told things, asked and made to forget, as a value; chats are texts in its template."""

from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import some_records

import mend_jax as mj
from mend_jax.data.chat import chat_prompt
from mend_jax.data.decoding import answers
from mend_jax.data.records import parse_record
from mend_jax.opened import Opened, opened
from mend_jax.saved.directory import EditorError, SavedEditor
from mend_jax.weights.chat_template import ChatTemplate, template_of_folder

pytest_plugins = ["scoped_run"]

PROMPT, OTHER = "Person 24 lives in", "Person 25 lives in"


@pytest.fixture(scope="module")
def model(scoped_editor: SavedEditor) -> Opened:
    return opened(scoped_editor)


def same(a: Opened, b: Opened) -> bool:
    return a.edits == b.edits and all(
        np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a.held, b.held)), strict=True)
    )


def test_told_asked_forgotten(model: Opened, scoped_editor: SavedEditor):
    """What is told acts on its own prompt, as the editor's own edit does; it is gone when it is
    forgotten; and no value was changed."""
    edited = mj.tell(model, PROMPT, "Paris")
    shown = model.ready.speaks(4)
    alone = shown.edit(PROMPT, "Paris")
    for prompt in (PROMPT, OTHER):
        assert mj.ask(edited, prompt, tokens=4) == shown.say(alone, [prompt])[0]
        assert mj.ask(model, prompt, tokens=4) == shown.ask(alone, [prompt])[0].before
    assert [r.prompt for r in edited.told] == [PROMPT] and not model.told
    assert same(mj.forget(edited, PROMPT), model)
    both = mj.tell(edited, OTHER, "Oslo")
    assert same(mj.forget(both, OTHER), edited)
    assert same(mj.tell(both, OTHER, "Oslo"), both)


def test_what_is_said_before_is_the_bases_own(model: Opened, scoped_editor: SavedEditor):
    """Though the program that says it is the one in which edits may act."""
    base, shown = scoped_editor.base, model.ready.speaks(4)
    codec, edit = mj.codec_of(base), shown.edit(PROMPT, "Paris")
    prompts = [PROMPT, OTHER, "Nobody lives in"]
    said = dict(answers(base, [codec.prompt(prompt) for prompt in prompts], 4, 1))
    before = [answer.before for answer in shown.ask(edit, prompts)]
    assert before == [codec.text(said[i], 1) for i in range(3)]
    assert before != shown.say(edit, prompts)


def test_many_at_once_are_one_by_one(model: Opened):
    records = some_records(300, 12)
    once = mj.tell_records(model, records)
    turn = model
    for record in records:
        turn = mj.tell(turn, record.prompt, record.target)
    assert [r.prompt for r in once.told] == [r.prompt for r in turn.told]
    for x, y in zip(*(jax.tree.leaves(m.held.kept) for m in (once, turn)), strict=True):
        unit = max(np.finfo(x.dtype).eps, 1e-4) if x.dtype.kind == "f" else 0  # of float16, a unit
        np.testing.assert_allclose(x, y, rtol=unit, atol=1e-5)


def test_what_contradicts_gives_way_only_if_it_is_said(model: Opened):
    edited = mj.tell(model, PROMPT, "Paris")
    with pytest.raises(ValueError, match=r"contradicts what is held: '.*' -> 'Paris'\. Forget"):
        mj.tell(edited, PROMPT, "Oslo")
    assert same(mj.tell(edited, PROMPT, "Oslo", replace=True), mj.tell(model, PROMPT, "Oslo"))
    with pytest.raises(ValueError, match="nothing was told of 'Person 25 lives in'"):
        mj.forget(edited, OTHER)


def test_a_chat_is_the_template_filled_in(model: Opened, tmp_path: Path):
    source = (
        "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": {"content": "<s>"}}')
    (tmp_path / "chat_template.jinja").write_text(source)
    chat = template_of_folder(tmp_path)
    assert chat == ChatTemplate(source, {"bos_token": "<s>"})
    base = model.saved.base._replace(chat=chat)
    messages = [{"role": "user", "content": PROMPT}]
    assert chat_prompt(base, messages) == f"<s><user>{PROMPT}<assistant>"
    with pytest.raises(ValueError, match="no chat template"):
        mj.ask(model, messages=messages)
    with pytest.raises(ValueError, match="a message is"):
        chat_prompt(base, [{"role": "user"}])
    refusing = base._replace(chat=ChatTemplate("{{ raise_exception('no system') }}"))
    with pytest.raises(ValueError, match="refuses: no system"):
        chat_prompt(refusing, messages)
    with pytest.raises(ValueError, match="a prompt, or messages"):
        mj.ask(model)


def test_records_of_chats_are_told_in_the_template(model: Opened):
    source = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    base = model.saved.base._replace(chat=ChatTemplate(source))
    chatting = model._replace(saved=model.saved._replace(base=base))
    messages = [{"role": "user", "content": PROMPT}]
    record = parse_record({"messages": messages, "target": "Paris"})
    told = mj.tell_records(chatting, [record])
    assert [r.prompt for r in told.told] == [f"<user>{PROMPT}<assistant>"]
    assert same(told, mj.tell(chatting, messages, "Paris"))
    assert same(mj.forget(told, messages), model)
    with pytest.raises(ValueError, match="has no chat template: give the prompt as a text"):
        mj.tell_records(model, [record])


def test_a_model_without_an_editor_is_refused():
    with pytest.raises(EditorError, match="no editor comes with the package for 'gpt2'"):
        mj.open("gpt2")
