"""Texts to tokens: what is read, what is labelled, for each kind of model."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, processors
from words import ids, words

import mend_jax as mj
from mend_jax.data.codec import encode_pair


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
    return SimpleNamespace(
        tokenizer=tokenizer,
        model=SimpleNamespace(kind=kind),
        config=SimpleNamespace(vocab_size=64, **config),
        name="a base",
    )


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
