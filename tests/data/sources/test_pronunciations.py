"""Edits of pronunciations: forms have their own targets, and no stem stands in both splits."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from tokenizers import Tokenizer

from mend_jax.data.codec import codec_of
from mend_jax.data.records import Record, Rephrase
from mend_jax.data.sources.pronunciations import (
    agreement,
    family,
    forms,
    plural,
    pronounce,
    pronunciation_records,
    read_dictionary,
    stems,
)
from mend_jax.models.registry import Base, load
from mend_jax.weights import WeightsError
from mend_jax.weights.spelling import spelling_tokenizer

REAL = Path(__file__).parents[4] / "shared" / "models" / "bart-g2p-us"
ALPHABETS = {"grapheme_chars": "____abcxy", "phoneme_chars": "____abæ"}


def test_letters_and_sounds_share_tokens():
    tokenizer = spelling_tokenizer(ALPHABETS, "folder")
    assert tokenizer.encode("abcxy").ids == [1, 4, 5, 6, 7, 8, 2]
    assert tokenizer.encode("bæ", add_special_tokens=False).ids == [1, 5, 6]
    assert tokenizer.decode([1, 5, 6, 2]) == "bæ"
    assert tokenizer.encode("a z").ids == [1, 4, 3, 3, 2]
    again = Tokenizer.from_str(tokenizer.to_str())
    assert again.encode("abcxy").ids == tokenizer.encode("abcxy").ids


def test_alphabets_that_do_not_fit_are_refused():
    with pytest.raises(WeightsError, match="folder: b, a stand elsewhere"):
        spelling_tokenizer(ALPHABETS | {"grapheme_chars": "____ba"}, "folder")


@pytest.mark.parametrize(
    "word, sounds, wanted",
    [
        ("cat", "kˈæt", ("cats", "kˈæts")),
        ("dog", "dˈɔɡ", ("dogs", "dˈɔɡz")),
        ("box", "bˈɑks", ("boxes", "bˈɑksᵻz")),
        ("bridge", "bɹˈɪʤ", ("bridges", "bɹˈɪʤᵻz")),
        ("city", "sˈɪɾi", ("cities", "sˈɪɾiz")),
        ("day", "dˈA", ("days", "dˈAz")),
        ("gladly", "ɡlˈædli", None),
    ],
)
def test_plural(word: str, sounds: str, wanted: tuple[str, str] | None):
    assert plural(word, sounds) == (wanted and Rephrase(*wanted))


WORDS = {
    "invite": ("ɪnvˈIt",),
    "inviter": ("ɪnvˈItəɹ",),
    "invitation": ("ˌɪnvətˈAʃən",),
    "visit": ("vˈɪzət",),
    "revisit": ("ɹivˈɪzət",),
}


def test_families_and_stems():
    assert family("revisit", WORDS) == family("visit", WORDS) == "vis"
    assert family("invite", WORDS) == "inv"
    assert stems("uninvited", WORDS) == ["invite"]
    assert stems("revisits", WORDS) == ["revisit", "visit"]


def test_forms_hold_the_word_in_letters_and_sounds():
    relatives = ["invite", "inviter", "invitation"]
    assert forms("invite", relatives, WORDS) == [("inviter", "ɪnvˈItəɹ"), ("invites", "ɪnvˈIts")]


@pytest.fixture(scope="module")
def base() -> Base:
    if not REAL.exists():
        pytest.skip("the pronunciation model is not here")
    return load(str(REAL))


@pytest.fixture(scope="module")
def dealt(base: Base) -> dict[str, list[Record]]:
    return {
        split: pronunciation_records(base, split, asked=300) for split in ("train", "validation")
    }


def test_a_pair_is_what_the_model_was_trained_on(base: Base):
    codec = codec_of(base)
    pair = codec.pair("knowledge", "nˈɑləʤ")
    assert pair.tokens[0] == 1 and pair.tokens[-1] == 2 and len(pair.tokens) == 2 + len("knowledge")
    assert pair.target is not None and pair.target.tolist()[:2] == [1, 1]
    assert codec.text(pair.labels.tolist()) == "nˈɑləʤ"


def test_edits_correct_the_model_and_locality_is_right(dealt: dict[str, list[Record]]):
    dictionary = read_dictionary()
    for records in dealt.values():
        assert len(records) > 10
        for record in records:
            assert record.target == dictionary[record.prompt][0]
            for form, target in record.rephrases:
                assert form.startswith(record.prompt.removesuffix("e")[:-1])
                assert target.startswith(record.target)
            for item in record.locality:
                assert item.answer in dictionary[item.prompt]
                near = item.prompt[-3:] == record.prompt[-3:]
                assert near or item.kind == "far"


def test_no_stem_stands_in_both_splits(dealt: dict[str, list[Record]]):
    dictionary = read_dictionary()
    trained, scored = (
        {
            stem
            for r in dealt[split]
            for word in (r.prompt, *(x.prompt for x in r.locality))
            for stem in (word, *stems(word, dictionary))
        }
        for split in ("train", "validation")
    )
    assert not trained & scored


def test_common_words_decide_whose_error_a_disagreement_is(base: Base):
    assert 0.7 < agreement(base) < 1.0
    stranger = base._replace(params=jax.tree.map(jnp.zeros_like, base.params))
    assert agreement(stranger) == 0.0


def test_without_a_dictionary_to_trust_words_change_places(base: Base):
    records = pronunciation_records(base, "validation", asked=300, correct=False)
    said = pronounce(base, [r.prompt for r in records])
    assert len(records) > 100
    for record in records:
        assert record.target != said[record.prompt] and not record.rephrases
        assert all(item.prompt[:3] != record.prompt[:3] for item in record.locality)
    targets = pronounce(base, [item.prompt for r in records for item in r.locality])
    assert all(targets[item.prompt] == item.answer for r in records for item in r.locality)
