"""What a scope reads of its records elsewhere: after other text, and in chats."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_run import byte_level_bpe

import mend_jax as mj
from mend_jax.data.records import Locality, Record, Rephrase
from mend_jax.runs.scope_elsewhere import OPENINGS, after_text, in_chats
from mend_jax.weights.chat_template import ChatTemplate

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
)
LANDS = range(400)
RECORDS = [
    Record(f"The capital of land {i}. is", "Rome", (f"Land {i}. is ruled from", f"{i}. Capital:"), (
        Locality(f"The capital of sea {i}. is", "Kyoto", "near"),
        Locality(f"The currency of land {i}. is", "franc", "own"),
    ), subject=f"land {i}.")
    for i in LANDS
]  # fmt: skip


def base_with(template: str) -> mj.Base:
    model: Any = SimpleNamespace(kind="causal")
    tokenizer = byte_level_bpe(["a"])
    config = SimpleNamespace(vocab_size=tokenizer.get_vocab_size())
    chat = ChatTemplate(template, {})
    return mj.Base(model, {}, tokenizer, config, "a base", None, chat=chat)  # type: ignore


def texts_of(record: Record) -> set[str]:
    asked = (record.prompt, *record.rephrases, *(item.prompt for item in record.locality))
    return {text for text in asked if isinstance(text, str)}


@pytest.fixture(scope="module")
def chats() -> list[tuple[Record, Record]]:
    """Of each record that is in chats, as it is, and there."""
    own = {record.subject: record for record in RECORDS}
    return [(own[found.subject], found) for found in in_chats(base_with(TEMPLATE), RECORDS, 0)]


def test_some_records_are_told_in_chats_and_the_others_asked(chats: list[tuple[Record, Record]]):
    assert 0.2 < len(chats) / len(RECORDS) < 0.4
    told = [(a, b) for a, b in chats if a.prompt != b.prompt]
    assert 0.3 < len(told) / len(chats) < 0.7
    for record, found in told:
        question, _, begun = found.prompt.rpartition("\n<assistant>")
        assert question.endswith(f"<user>{record.prompt}") and begun == ""


def test_what_is_asked_is_the_last_turn_or_has_begun(chats: list[tuple[Record, Record]]):
    begun_ones, alone = [], []
    for record, found in chats:
        asked = [r for r in found.rephrases if isinstance(r, Rephrase) and "<user>" in r.prompt]
        assert len(asked) == 2 and {r.target for r in asked} == {"Rome"}
        assert {(x.kind, x.answer) for x in found.locality} == {("near", "Kyoto"), ("own", "franc")}
        phrasings = set(record.rephrases)
        ways = [(r.prompt, phrasings) for r in asked]
        ways += [(x.prompt, {x.prompt.rpartition("<user>")[2].partition("\n")[0]})
                 for x in found.locality]  # fmt: skip
        for text, known in ways:
            before, _, last = text.rpartition("<user>")
            question, _, begun = last.partition("\n<assistant>")
            assert question in known & texts_of(record) and begun in {"", *known}
            begun_ones.append(begun != "")
            alone.append(before == "")
    assert 0.2 < sum(begun_ones) / len(begun_ones) < 0.4
    assert 0.4 < sum(alone) / len(alone) < 0.6


def test_turns_before_are_greetings_system_lines_and_other_records(
    chats: list[tuple[Record, Record]],
):
    said: Counter[str] = Counter()
    for _, found in chats:
        for text in (r.prompt for r in found.rephrases if isinstance(r, Rephrase)):
            said[text.rpartition("<user>")[0]] += 1
    others = [before for before in said if before.endswith("<assistant>Rome\n")]
    given = {"".join(f"<{m['role']}>{m['content']}\n" for m in opening) for opening in OPENINGS}
    assert set(said) - {"", *others} == given and others


def test_what_a_template_refuses_stands_before_nothing():
    found = in_chats(base_with(NO_SYSTEM), RECORDS, 0)
    assert found and not any("<system>" in str(record) for record in found)
    assert any("Hi there!" in str(record) for record in found)
    assert in_chats(base_with(""), RECORDS, 0) == []


def test_one_phrasing_and_one_neighbour_stand_after_other_text():
    stated = 0
    found_after = after_text(RECORDS, ["It rained", "She left"], 0)
    for record, found in zip(RECORDS, found_after, strict=True):
        assert found._replace(rephrases=record.rephrases, locality=record.locality) == record
        (again,), (near,) = found.rephrases[2:], found.locality[2:]
        assert isinstance(again, Rephrase) and again.target == "Rome" and near.kind == "near"
        text = again.prompt.removesuffix(f". {record.prompt}")
        assert near.prompt == f"{text}. {record.locality[0].prompt}"
        assert text in ("It rained", "She left") or text.endswith("is Rome")
        stated += text.endswith("is Rome")
    assert 0.2 < stated / len(RECORDS) < 0.4
