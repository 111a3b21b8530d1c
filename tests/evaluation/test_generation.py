"""The model's own words: what counts as the answer, and that what is said is what it says alone."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from tiny_run import Finished, some_records
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import mend_jax as mj
from mend_jax.data.token_records import encode_records
from mend_jax.evaluation.generation import (
    fluency,
    hear,
    interview,
    make_speaker,
    matches,
    scores_of,
    speak_of,
)
from mend_jax.evaluation.metrics import summarise
from mend_jax.evaluation.teacher_forced import Batching, answered
from mend_jax.reports.before_after import before_after_of

pytest_plugins = ["finished_run"]

NEW = 5
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize(
    ("said", "exact", "contains"),
    [
        ("Rome", True, True),
        (" rome. ", True, True),
        ("Rome, the capital", False, True),
        ("in Rome", False, True),
        ("Romeo", False, False),
        ("Paris", False, False),
        ("", False, False),
    ],
)
def test_what_counts_as_the_answer(said: str, exact: bool, contains: bool):
    assert matches(said, "Rome", "exact") is exact
    assert matches(said, "Rome", "contains") is contains


def test_answers_in_other_scripts_and_with_marks_that_regexes_know():
    assert matches("это Москва, да", "Москва", "contains")
    assert matches("東京", "東京", "exact") and matches("C++ (1985)", "C++", "contains")
    assert not matches("C", "C++", "contains")
    assert not matches("C", "C#", "exact") and not matches("50", "50%", "exact")


@pytest.mark.parametrize(
    ("said", "answer", "contains"),
    [
        ("首都是罗马。", "罗马", True),
        ("東京は日本の首都です", "日本", True),
        ("서울은 수도이다", "서울", True),
        ("กรุงโรมเป็นเมืองหลวง", "โรม", True),
        ("我的iPhone手机", "iPhone", True),  # a word of one script between those of another
        ("iPhones", "iPhone", False),
        ("रामायण", "राम", False),  # a vowel sign goes on with the word
        ("это Москвами", "Москва", False),
        ("rome_1", "Rome", False),
        ("Romeo and Rome", "Rome", True),  # the second place counts
    ],
)
def test_words_end_as_their_script_ends_them(said: str, answer: str, contains: bool):
    assert matches(said, answer, "contains") is contains
    assert not matches(said, answer, "exact")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Turgut O\u0308zal", "Turgut \u00d6zal"),  # composed or not
        ("罗马。", "罗马"),
        ("रोम।", "रोम"),
        ("roma؟", "Roma"),
        ("STRASSE", "Straße"),
    ],
)
def test_one_text_written_in_two_ways_is_the_same(said: str, answer: str):
    assert matches(said, answer, "exact") and matches(answer, said, "exact")
    assert matches(said, answer, "contains")


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (" Roses are red\nViolets are blue", True),
        (" Roses are red\nViolets are blue\nand more", True),
        (" Roses are red\nBananas are yellow", False),
        (" Roses are red", False),
    ],
)
def test_an_answer_of_two_lines_is_compared_with_two(finished: Finished, said: str, right: bool):
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(BYTES)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    codec = mj.codec_of(mj.load_editor(finished.config.out).base._replace(tokenizer=tokenizer))
    pair = codec.pair("A poem:", "Roses are red\nViolets are blue")
    ids = np.asarray(tokenizer.encode(said).ids)
    heard = hear(codec, pair, ids, ids)
    assert heard.answer == "Roses are red\nViolets are blue"
    assert matches(heard.after, heard.answer, "exact") is right
    one = hear(codec, codec.pair("A poem:", "Roses are red"), ids, ids)
    assert matches(one.after, one.answer, "exact")


def test_fluency_is_high_without_repeats_and_nothing_for_less_than_three_words():
    """Four different words: three bigrams (log2 3 bits) and two trigrams (1 bit)."""
    wanted = (2 / 3 * math.log2(3) + 4 / 3 * 1) / 2
    assert fluency(["a b c d"]) == pytest.approx(wanted)
    assert fluency(["a a a a"]) == 0
    assert fluency(["a b c d", "a a a a", "a b"]) == pytest.approx(wanted / 2)
    assert math.isnan(fluency(["a b"]))


@pytest.fixture(scope="module")
def heard(finished: Finished) -> Any:
    """(records, interviews) of five edits, two side by side."""
    saved = mj.load_editor(finished.config.out)
    codec = mj.codec_of(saved.base)
    records, _ = encode_records(some_records(24, 5), codec.pair)
    records[1] = records[1]._replace(rephrases=(), locality=(), kinds=())
    speaker = make_speaker(saved.editor, speak_of(saved.base.model, NEW), codec)
    seen: list[tuple[int, int]] = []
    found = interview(
        speaker, saved.state, saved.base.params, records, Batching(batch=2),
        progress=lambda *x: seen.append(x),
    )  # fmt: skip
    assert seen == [(2, 5), (4, 5), (5, 5)]
    return saved, records, found


def test_everybody_says_what_they_say_alone(heard: Any):
    saved, records, found = heard
    shown = before_after_of(saved, NEW)
    assert any(x.before != x.after for entry in found for x in entry.outer)
    for record, entry in zip(records, found, strict=True):
        edit = shown.edit(record.record.prompt, record.record.target)
        prompts = [x.prompt for x in (*entry.outer, *entry.locality)]
        assert prompts[0] == record.record.prompt
        assert len(entry.outer) == len(record.outer) and entry.outer[0].answer == (
            record.record.target
        )
        for x, alone in zip((*entry.outer, *entry.locality), shown.ask(edit, prompts), strict=True):
            assert (x.before, x.after) == (alone.before, alone.after)


def test_scores_are_those_of_the_words(heard: Any):
    _, records, found = heard
    for protocol in ("exact", "contains"):
        scores = scores_of(found, records, protocol)
        for i, entry in enumerate(found):
            for j, x in enumerate(entry.outer):
                assert scores.success[i, j] == matches(x.after, x.answer, protocol)
                assert scores.success_before[i, j] == matches(x.before, x.answer, protocol)
            for j, x in enumerate(entry.locality):
                assert scores.agreement[i, j] == (x.before == x.after)
        assert np.sum(~np.isnan(scores.success[1])) == 1
        names = set(summarise(scores))
        assert {"reliability", "locality_agreement", "drawdown"} <= names
        assert not {"locality_kl", "perplexity_before"} & names  # only teacher forcing tells


def test_the_words_begin_with_what_teacher_forcing_finds(heard: Any):
    """Where every token is right with the answer fed in, the model says it by itself."""
    saved, records, found = heard
    logits = jax.jit(mj.sequence_logits(saved.base.model))
    pairs = [
        (p, x)
        for r, entry in zip(records, found, strict=True)
        for p, x in zip((*r.outer, *r.locality), (*entry.outer, *entry.locality), strict=True)
    ]
    for pair, x in pairs:
        alone = mj.Pair(mj.Inputs(pair.tokens[None], pair.read[None]), None)
        said = logits(saved.base.params, alone)
        if answered(said, pair.labels[None])[0]:
            assert x.before.startswith(x.answer)
