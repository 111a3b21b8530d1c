"""Records that are chats: read, written, put into the base's template, and refused."""

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_run import byte_level_bpe

import mend_jax as mj
from mend_jax.data.chat import BEFORE, Turn, as_chats, in_template, turn_of
from mend_jax.data.codec import codec_of
from mend_jax.data.fields import RecordError
from mend_jax.data.messages import Chat
from mend_jax.data.own_subject import with_own
from mend_jax.data.preceded import preceded
from mend_jax.data.records import Locality, Record, Rephrase, parse_record, to_json, write_records
from mend_jax.data.sources.base import Reading
from mend_jax.data.sources.registry import read_noted
from mend_jax.data.token_records import encode_records
from mend_jax.runs.scope_passages import in_chat
from mend_jax.weights.chat_template import ChatTemplate

ASKED = [{"role": "user", "content": "What is the capital of France?"}]
LATER = [{"role": "system", "content": "Be short."}, *ASKED]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROW: dict[str, Any] = {
    "messages": ASKED,
    "target": "Rome",
    "rephrases": [{"messages": LATER}, "France's capital is", {"messages": ASKED, "target": "R"}],
    "locality": [{"messages": [{"role": "user", "content": "Japan?"}], "answer": "Tokyo"}],
    "subject": "France",
}


@pytest.fixture(scope="module")
def base() -> mj.Base:
    model: Any = SimpleNamespace(kind="causal")
    tokenizer = byte_level_bpe(["a"])
    tokenizer.add_special_tokens(["<assistant>"])
    config = SimpleNamespace(vocab_size=tokenizer.get_vocab_size())
    chat = ChatTemplate(TEMPLATE, {})
    return mj.Base(model, {}, tokenizer, config, "a base", None, chat=chat)  # type: ignore


def test_what_is_read_is_written(tmp_path: Path):
    record = parse_record(ROW)
    assert record.prompt == "user: What is the capital of France?"
    assert record.rephrases[0] == "system: Be short.\nuser: What is the capital of France?"
    assert record.rephrases[2] == Rephrase(record.prompt, "R")
    assert parse_record(to_json(record)) == record and to_json(record)["messages"] == ASKED
    plain = Record("The capital of Japan is", "Oslo", ("Japan's capital is",))
    write_records(tmp_path / "records.jsonl", [record, plain])
    for rows in ([record, plain], [plain, record]):  # whichever of the two comes first
        write_records(tmp_path / "records.jsonl", rows)
        read = read_noted(tmp_path / "records.jsonl", Reading())
        assert read.records == rows
        assert not any("not read" in note for note in read.notes)
    chat: Any = record.prompt
    for again in (copy.deepcopy(chat), pickle.loads(pickle.dumps(chat))):
        assert again == chat and again.messages == chat.messages


def test_a_model_is_given_its_own_template_and_answers_as_the_assistant(base: mj.Base):
    codec, record = codec_of(base), parse_record(ROW)
    text = "<user>What is the capital of France?\n<assistant>"
    same = codec.pair(text, "Rome")
    pair = codec.pair(record.prompt, record.target)
    np.testing.assert_array_equal(pair.tokens, same.tokens)
    np.testing.assert_array_equal(pair.labels, base.tokenizer.encode("Rome").ids)
    assert codec.prompt(record.prompt) == codec.prompt(text) and codec.lost(record.prompt) == ""
    (told,) = in_template(base, [record])
    assert told.prompt == text and type(told.prompt) is str
    assert told.rephrases[0] == f"<system>Be short.\n{text}"
    assert told.locality[0].prompt == "<user>Japan?\n<assistant>"
    (encoded,), skipped = encode_records([record], codec.pair)
    assert len(encoded.rephrases) == 3 and len(encoded.locality) == 1 and not any(skipped.too_long)
    np.testing.assert_array_equal(encoded.edit.tokens, same.tokens)


ENDING = TEMPLATE.replace("\n{% endfor %}", "<end>\n{% endfor %}")


def test_an_answer_that_is_all_of_a_turn_has_its_end(base: mj.Base):
    assert turn_of(base) == Turn()  # the model's turn has no mark at its end
    tokenizer = byte_level_bpe(["a"])
    tokenizer.add_special_tokens(["<assistant>", "<end>"])
    config: Any = SimpleNamespace(vocab_size=tokenizer.get_vocab_size())
    base = base._replace(tokenizer=tokenizer, config=config, chat=ChatTemplate(ENDING, {}))
    assert turn_of(base) == Turn("<assistant>", "<end>")
    assert turn_of(base._replace(chat=ChatTemplate())) == Turn()
    plain = codec_of(base).pair(Chat(ASKED), "Rome")
    codec = codec_of(base._replace(chat=base.chat._replace(ends=True)))
    whole = codec.pair(Chat(ASKED), "Rome")
    np.testing.assert_array_equal(whole.labels[:-1], plain.labels)
    assert whole.labels[-1] == tokenizer.token_to_id("<end>")
    np.testing.assert_array_equal(whole.tokens[:-1], plain.tokens)
    np.testing.assert_array_equal(whole.condition, plain.condition)
    assert codec.text(whole.labels, None) == "Rome"
    text = "The capital of France is", "Rome"
    np.testing.assert_array_equal(codec.pair(*text).labels, codec_of(base).pair(*text).labels)


def test_without_a_template_there_is_one_error(base: mj.Base):
    codec = codec_of(base._replace(chat=ChatTemplate()))
    for ask in (lambda: codec.pair(Chat(ASKED), "Rome"), lambda: codec.prompt(Chat(ASKED))):
        with pytest.raises(ValueError, match="'a base' has no chat template"):
            ask()
    with pytest.raises(ValueError, match="no chat template"):
        encode_records([parse_record(ROW)], codec.pair)


def test_what_is_done_to_prompts_is_done_to_what_is_said():
    record = parse_record(ROW | {"messages": [{"role": "user", "content": "Where is {}?"}]})
    assert isinstance(record.prompt, Chat)
    assert record.prompt.messages == ({"role": "user", "content": "Where is France?"},)
    rows = (("What is", "Oslo", "a city"), ("Who knows", "Peru", "Ann"))
    others = [
        parse_record({"messages": [{"role": "user", "content": f"{asked} {of}?"}], "subject": of,
                      "target": target}) for asked, of, target in rows
    ]  # fmt: skip
    own = [x for x in with_own(others)[0].locality if x.kind == "own"]
    assert [x.prompt for x in own] == ["user: Who knows Oslo?"] and isinstance(own[0].prompt, Chat)
    (after,) = preceded([record], "sentence")
    first = after.rephrases[0]
    assert isinstance(first, Rephrase) and isinstance(first.prompt, Chat)
    assert first.prompt.messages[0]["content"].endswith(". Where is France?")
    with pytest.raises(ValueError, match="need no turn of a chat"):
        preceded([record], "chat")


def test_any_records_as_chats():
    stays = (Locality("Gold is", "Au", "far", " "),)
    record = Record(" Paris is ", "x", ("a", Rephrase("b", "y"), "c"), stays, "Paris", "")
    (found,) = as_chats([record], BEFORE)
    roles = [[m["role"] for m in r.prompt.messages] for r in found.rephrases]
    assert roles == [["user", "assistant", "user"], ["system", "user"]] + roles[:1]
    assert found.prompt == "user: Paris is" and found.separator is None
    assert [r.target for r in found.rephrases] == ["x", "y", "x"]
    assert found.locality == (Locality("user: Gold is", "Au", "far"),)
    assert as_chats([found], BEFORE) == [found]
    assert as_chats([record])[0].rephrases[0].prompt == "user: a"


@pytest.mark.parametrize(
    "row, said",
    [
        ({"prompt": "a"}, "'prompt' and 'messages' are both there"),
        ({"messages": "hello"}, "messages are a list, found str"),
        ({"messages": []}, "a chat without messages asks for nothing"),
        ({"messages": ["hello"]}, "a message is {'role', 'content'}, found 'hello'"),
        ({"messages": [{"role": "user"}]}, "a message is {'role', 'content'}"),
        ({"messages": [{"role": "user", "content": " "}]}, "role and content are texts"),
        ({"messages": [{"role": 1, "content": "a"}]}, "role and content are texts"),
        ({"rephrases": [{"messages": []}]}, "rephrases[0]: 'messages': a chat without"),
        ({"locality": [{"messages": []}]}, "locality[0]: 'messages': a chat without"),
    ],
)
def test_chats_that_are_none(row: dict[str, Any], said: str):
    with pytest.raises(RecordError) as told:
        parse_record(ROW | row, "file, line 3")
    assert str(told.value).startswith("file, line 3") and said in str(told.value)


def test_a_scope_reads_what_is_asked_where_the_models_turn_begins_and_after(base: mj.Base):
    """Of some records, one phrasing and one locality prompt of each kind."""
    records = [
        Record(f"The capital of land {i} is", "Rome", (f"Land {i} is ruled from",), (
            Locality(f"The capital of sea {i} is", "Kyoto", "near"),
            Locality(f"The currency of land {i} is", "franc", "own"),
        ), subject=f"land {i}")
        for i in range(100)
    ]  # fmt: skip
    found = in_chat(base, records, 0)
    chats = [(a, b) for a, b in zip(records, found, strict=True) if a != b]
    assert 0.2 < len(chats) / len(records) < 0.4
    bare = []
    for record, asked in chats:
        assert asked._replace(rephrases=record.rephrases, locality=record.locality) == record
        (again,), stays = asked.rephrases[1:], asked.locality[2:]
        assert isinstance(again, Rephrase) and again.target == "Rome"
        assert [(x.kind, x.answer) for x in stays] == [("near", "Kyoto"), ("own", "franc")]
        turns = [text.prompt.partition("\n<assistant>") for text in (again, *stays)]
        assert {user[: len("<user>")] for user, _, _ in turns} == {"<user>"}
        own = (record.prompt, record.rephrases[0])
        known = (own, *((item.prompt,) for item in record.locality))
        for (user, _, begun), texts in zip(turns, known, strict=True):
            assert user.removeprefix("<user>") in texts and begun in ("", *texts)
        assert len({begun == "" for _, _, begun in turns}) == 1
        bare.append(turns[0][2] == "")
    assert 0.4 < np.mean(bare) < 0.9
    assert in_chat(base._replace(chat=ChatTemplate("", {})), records, 0) == records
