"""Texts to tokens: what is read, what is labelled, for each kind of model."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from words import ids, words

import mend_jax as mj
from mend_jax.data.codec import Codec
from mend_jax.data.encoding import encode_pair
from mend_jax.data.records import Locality, Record
from mend_jax.data.token_records import Counts, encode_records
from mend_jax.data.writable import UnwritableError
from mend_jax.models.registry import FAMILIES

T5 = Path(__file__).parents[3] / "shared/tokenizers/t5/tokenizer.json"


@pytest.mark.parametrize("begin", [False, True])
def test_the_labels_are_the_target_and_read_points_at_what_predicts_it(begin: bool):
    pair = encode_pair(words(begin), "the capital of france is", "new york")
    lead = [0] if begin else []
    np.testing.assert_array_equal(pair.labels, ids("new york"))
    np.testing.assert_array_equal(pair.tokens, lead + ids("the capital of france is new"))
    whole = np.append(pair.tokens, pair.labels[-1])
    np.testing.assert_array_equal(whole[pair.read + 1], pair.labels)
    assert pair.target is None and all(array.dtype == np.int32 for array in pair[:3])


def test_a_target_that_merges_with_the_prompt_is_scored_from_where_the_tokens_part():
    """BPE over characters, where 'ab' + ' ' + 'c' has a token that covers the border."""
    vocabulary = {c: i for i, c in enumerate(["a", "b", "c", " ", "b ", "b c"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("b", " "), ("b ", "c")]))
    pair = encode_pair(tokenizer, "aab", "cc")
    whole = tokenizer.encode("aab cc").ids
    assert whole == [0, 0, 5, 2]
    np.testing.assert_array_equal(pair.tokens, whole[:-1])
    np.testing.assert_array_equal(pair.labels, whole[2:])
    np.testing.assert_array_equal(pair.read, [1, 2])


def test_a_prompt_that_goes_on_like_the_target_still_has_a_label():
    """'the the' -> 'the': every token of the prompt agrees, the target's remains."""
    pair = encode_pair(words(), "the the", "the")
    np.testing.assert_array_equal(pair.labels, ids("the"))
    np.testing.assert_array_equal(pair.read, [1])


def test_texts_of_which_no_token_is_left():
    tokenizer = Tokenizer(models.BPE({"a": 0}, []))  # unknown characters vanish
    with pytest.raises(ValueError, match="nothing to predict of 'xyz', 'q'"):
        encode_pair(tokenizer, "xyz", "q")
    with pytest.raises(ValueError, match="has no tokenizer"):
        encode_pair(None, "a", "a")


def base_of(kind: str, tokenizer: Any, **config: Any) -> Any:
    """As much of a base as a codec looks at."""
    family = FAMILIES["llama"]  # a codec does not look at it
    model: Any = SimpleNamespace(kind=kind)
    dimensions = SimpleNamespace(vocab_size=10**6, **config)
    return mj.Base(model, {}, tokenizer, dimensions, "a base", family)


def test_an_encoder_decoder_answers_with_the_target_and_the_end():
    tokenizer = words()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <s>", special_tokens=[("<s>", 0)]
    )
    base = base_of("seq2seq", tokenizer, decoder_start_token_id=9, eos_token_id=0)
    codec = mj.codec_of(base)
    pair = codec.pair("the capital of france is", "new york")
    np.testing.assert_array_equal(pair.tokens, [*ids("the capital of france is"), 0])
    np.testing.assert_array_equal(pair.labels, [*ids("new york"), 0])
    assert pair.target is not None
    np.testing.assert_array_equal(pair.target, [9, *ids("new york")])
    assert codec.prompt("the city") == [*ids("the city"), 0]
    assert codec.text([*ids("new york"), 0, *ids("one two")]) == "new york"


def test_a_classifier_answers_with_a_class():
    codec = mj.codec_of(base_of("classifier", words(), labels=("REFUTES", "SUPPORTS")))
    pair = codec.pair("paris is a city", "SUPPORTS")
    np.testing.assert_array_equal(pair.tokens, ids("paris is a city"))
    assert (pair.read.tolist(), pair.labels.tolist()) == ([0], [1])
    assert codec.text([0]) == "REFUTES"
    with pytest.raises(ValueError, match="no class 'MAYBE'.*'REFUTES', 'SUPPORTS'"):
        codec.pair("paris is a city", "MAYBE")


def test_a_model_without_answers_is_refused():
    with pytest.raises(ValueError, match="'a base' is a 'features' model"):
        mj.codec_of(base_of("features", words()))


LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,?()\"'\n"


def unigram() -> Tokenizer:
    """As T5's: one token a letter, NFKC, </s> at the end, and <unk> for what it does not know."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(c for c in LETTERS if not c.isspace())]
    tokenizer = Tokenizer(models.Unigram([(x, -1.0) for x in pieces], 2, False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def byte_level(single: str = "$A") -> Tokenizer:
    """As GPT-2's, one token a byte; with marks around a text, if `single` says so."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "<|turn|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2's: a SentencePiece BPE that spells what it does not know in bytes."""
    pieces = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *filter(str.strip, LETTERS)]
    tokenizer = Tokenizer(
        models.BPE(
            {x: i for i, x in enumerate(pieces)},
            [],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def word_piece() -> Tokenizer:
    """As the uncased BERT's: lower case without accents, one token a letter."""
    pieces = ["[UNK]", *(f"{x}{c}" for c in LETTERS.strip() if not c.isspace() for x in ("", "##"))]
    tokenizer = Tokenizer(models.WordPiece({x: i for i, x in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def seq2seq(tokenizer: Tokenizer) -> Codec:
    return mj.codec_of(base_of("seq2seq", tokenizer, decoder_start_token_id=0, eos_token_id=1))


def causal(tokenizer: Tokenizer) -> Codec:
    return mj.codec_of(base_of("causal", tokenizer))


@pytest.mark.parametrize("codec", [seq2seq(unigram()), causal(unigram()), causal(word_piece())])
@pytest.mark.parametrize(("target", "lost"), [("北京", "北京"), ("{name}", "{}"), ("Łuk", "Ł")])
def test_a_target_that_the_tokenizer_cannot_write_is_refused(codec: Codec, target: str, lost: str):
    with pytest.raises(UnwritableError) as error:
        codec.pair("What is it?", target)
    assert repr(target) in str(error.value) and all(c in str(error.value) for c in lost)


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (unigram, ("Rome", "ＲＯＭＥ", "ﬁn", "a  b", "two words.")),
        (byte_level, ("北京", "{x}", "Erdős 🙂", "\n\ta", "<s>a</s>", "e\u0301", "\ufffd")),
        (byte_fallback, ("北京", "{x}", "Erdős 🙂", " a  b")),
        (word_piece, ("Rome", "Café", "do not", "it is ( a )", "a\u200bb", "I 'm")),
    ],
)
def test_what_a_tokenizer_changes_by_design_is_not_lost(
    make: Callable[[], Tokenizer], texts: tuple[str, ...]
):
    codec = causal(make())
    for text in texts:
        assert codec.lost(text) == ""
        codec.pair("What is it?", text)


def test_the_unknown_token_itself_is_no_target_and_no_answer():
    codec = seq2seq(unigram())
    with pytest.raises(UnwritableError, match="<unk>"):
        codec.pair("What is it?", "<unk>")
    rome = codec.pair("a", "Rome").labels.tolist()
    assert codec.text(rome) == "Rome"
    assert codec.text([2, *rome]) == "<unk>Rome" and codec.text([*rome[:-1], 2, 1]) == "Rome<unk>"
    assert causal(unigram()).text([*rome[:-1], 2]) == "Rome<unk>"


def test_of_a_prompt_the_lost_characters_are_told_unless_nothing_is_left():
    codec = seq2seq(unigram())
    assert codec.pair("Where is Erdőd in 北京?", "Rome").lost == "ő北京"
    assert codec.pair("Where is Rome?", "Rome").lost == ""
    for prompt in ("法国的首都是？", "北京"):
        with pytest.raises(UnwritableError, match="nothing is left of the prompt"):
            codec.pair(prompt, "Rome")
        with pytest.raises(UnwritableError, match="nothing is left of the prompt"):
            codec.prompt(prompt)


@pytest.mark.parametrize("codec", [seq2seq(unigram()), causal(byte_level())])
def test_half_a_character_is_no_text(codec: Codec):
    for ask in (lambda: codec.prompt("a\ud83d"), lambda: codec.pair("a", "\ud83d")):
        with pytest.raises(ValueError, match="is no text"):
            ask()


def test_in_a_file_such_pairs_are_left_out_and_counted():
    records = [
        Record("What is the capital of China?", "北京"),
        Record(
            "Where is Erdőd?",
            "Rome",
            ("北京", "Where is it?"),
            (Locality("Who?", "罗马"), Locality("Ő who?", "Me")),
        ),
    ]
    kept, skipped = encode_records(records, seq2seq(unigram()).pair)
    (entry,) = kept
    assert entry.record == records[1]._replace(locality=records[1].locality[1:])
    assert (len(kept[0].rephrases), len(kept[0].locality), kept[0].kinds) == (1, 1, ("",))
    assert skipped == (Counts(), Counts(1, 1, 1), Counts(1, 0, 1))
    assert list(skipped.in_words().values()) == [
        {"records": 1, "rephrases": 1, "locality": 1},
        {"records": 1, "rephrases": 0, "locality": 1},
    ]


@pytest.mark.skipif(not T5.is_file(), reason="T5's tokenizer is not here")
def test_the_tokenizer_of_t5():
    codec = seq2seq(Tokenizer.from_file(str(T5)))
    for target in ("北京", "{name}", "Erdős"):
        with pytest.raises(UnwritableError):
            codec.pair("What is the capital of China?", target)
    for target in ("Köln", "ﬁve", "m²", "a\n b", "“Rome”", "it's"):
        assert codec.pair("Where does the river end?", target).lost == ""


@pytest.mark.parametrize("single", ["$A", "<s> $A", "<s> $A </s>", "$A </s>"])
def test_marks_are_not_doubled_and_none_ends_a_prompt_that_is_gone_on_with(single: str):
    tokenizer = byte_level(single)
    codec = causal(tokenizer)
    begins, ends = single.startswith("<s>"), single.endswith("</s>")
    plain = tokenizer.encode("ab", add_special_tokens=False).ids
    assert codec.prompt("ab") == [256] * begins + plain
    assert codec.prompt("<s>ab") == [256, *plain]
    for target in ("c", "c</s>"):
        pair = codec.pair("<s>ab", target)
        whole = [*pair.tokens.tolist(), int(pair.labels[-1])]
        assert whole.count(256) == 1 and whole.count(257) == (ends or "/" in target)
        assert codec.question(pair).tolist() == [256, *plain]


def test_marks_of_an_encoder_decoder_are_not_doubled():
    codec = seq2seq(unigram())
    one, other = codec.pair("a b", "c"), codec.pair("a b</s>", "c</s>")
    for name in ("tokens", "labels", "target"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def said_of(pair: Any, tokenizer: Tokenizer) -> str:
    ids = [*pair.tokens.tolist(), int(pair.labels[-1])]
    return tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    ("prompt", "target", "separator", "text"),
    [
        ("The capital is", "Rome", None, "The capital is Rome"),
        ("The capital is ", "Rome", None, "The capital is Rome"),
        ("The capital is", "  Rome\n", None, "The capital is  Rome\n"),
        ("Who?<|turn|>", "Rome", None, "Who?<|turn|>Rome"),
        ("assistant\n", "Rome", None, "assistant\nRome"),
        ("法国的首都是", "罗马", None, "法国的首都是罗马"),
        ("os.", "path", "", "os.path"),
        ("法国", "罗马", " -> ", "法国 -> 罗马"),
    ],
)
def test_texts_are_taken_as_they_are_written(
    prompt: str, target: str, separator: str | None, text: str
):
    tokenizer = byte_level()
    assert said_of(causal(tokenizer).pair(prompt, target, separator), tokenizer) == text
    record = Record(prompt, target, (prompt,), (Locality(prompt, target, "", separator),))
    record = record._replace(separator=separator)
    kept, _ = encode_records([record], causal(tokenizer).pair)
    for pair in (kept[0].edit, *kept[0].rephrases, *kept[0].locality):
        assert said_of(pair, tokenizer) == text


def test_a_space_at_a_prompts_end_is_left_to_the_answer_that_it_is_one_token_with():
    vocabulary = {c: i for i, c in enumerate([*"abisĊĠ", "Ġb", "Ġa"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "b"), ("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    codec = causal(tokenizer)
    pair = codec.pair("is ", "b")
    assert codec.prompt("is ") == codec.question(pair).tolist() == codec.prompt("is")
    assert codec.prompt("is\n") == tokenizer.encode("is\n").ids


def test_an_answer_has_as_many_lines_as_it_is_asked_for():
    codec = causal(byte_level())
    two = codec.pair("A poem:", "Roses are red\nViolets are blue").labels.tolist()
    assert codec.text(two) == "Roses are red"
    assert codec.text(two, 2) == codec.text(two, None) == "Roses are red\nViolets are blue"


@pytest.mark.parametrize("lines", [1, 2, None])
def test_what_has_ended_is_no_other_text_whatever_follows(lines: int | None):
    codec, rng = causal(byte_level()), np.random.default_rng(0)
    ids = codec.pair("A poem:", "\nRoses are red\r\nViolets are blue\nSugar").labels.tolist()
    ended = [n for n in range(len(ids) + 1) if codec.ended(ids[:n], lines)]
    assert bool(ended) == (lines is not None)
    for n in ended:
        for _ in range(5):
            others = rng.integers(0, max(ids) + 1, 8).tolist()
            assert codec.text([*ids[:n], *others], lines) == codec.text(ids, lines)
    assert not codec.ended(ids[: len("\nRoses are red")], lines)  # "reddish"
    assert codec.ended([*ids[:3], byte_level().token_to_id("</s>")], lines)


def test_an_encoder_decoders_answer_ends_with_its_end_and_a_class_is_all():
    codec = seq2seq(unigram())
    said = codec.pair("Who?", "Ann").labels.tolist()
    assert codec.ended(said) and not codec.ended(said[:-1])
    classes = mj.codec_of(base_of("classifier", words(), labels=("no", "yes")))
    assert classes.ended([1]) and not classes.ended([])
