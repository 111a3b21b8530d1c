"""Edits from a text: targets of exactly so many tokens, and nothing shared by the splits."""

import random
from dataclasses import replace

import jax
import pytest
from conftest import TINY
from words import WORDS, words

from mend_jax.data.codec import codec_of
from mend_jax.data.records import Record
from mend_jax.data.sources.wikitext_sampling import (
    LONGEST,
    SHORTEST,
    continuation_records,
    cut,
    passages,
)
from mend_jax.models.llama import FAMILY, Llama
from mend_jax.models.registry import Base

TOKENS = 4


def some_text(sections: int = 90) -> str:
    """Sections of 55 words; 25 stand before an `<unk>`, 5 between two, 25 after."""
    rng = random.Random(0)
    parts = []
    for i in range(sections):
        said = [f"w{i}.{j}" if j % 7 == 0 else rng.choice(WORDS) for j in range(55)]
        parts.append(" ".join([*said[:25], "<unk>", *said[25:30], "<unk>\n", *said[30:]]))
    return "\n \n".join(parts)


@pytest.fixture(scope="module")
def base() -> Base:
    tokenizer = words()
    config = replace(TINY, vocab_size=tokenizer.get_vocab_size())
    model = Llama(config)
    params = model.init(jax.random.key(0), model.example_inputs())["params"]
    return Base(model, params, tokenizer, config, "tiny", FAMILY)


@pytest.fixture(scope="module")
def dealt(base: Base) -> dict[str, list[Record]]:
    records, without = continuation_records(base, some_text(), 64, TOKENS, batch=32)
    assert without + sum(map(len, records.values())) == 64 and without < 5
    return records


def test_passages_hold_no_unknown_word_and_stay_in_their_section():
    found = passages(some_text())
    assert len(found) == 2 * 90
    for passage in found:
        assert SHORTEST <= len(passage.words) <= LONGEST
        assert "<unk>" not in passage.words
        assert len({w.split(".")[0] for w in passage.words if "." in w}) == 1


def test_a_cut_leaves_half_to_four_fifths():
    rng = random.Random(0)
    places = [len(cut(passages(some_text())[0], rng)[0].split()) for _ in range(200)]
    assert (min(places), max(places)) == (round(0.5 * 25), int(0.8 * 25))


def test_a_target_is_exactly_so_many_tokens(base: Base, dealt: dict[str, list[Record]]):
    pair = codec_of(base).pair
    for record in (*dealt["train"], *dealt["validation"]):
        tokens = pair(record.prompt, record.target)
        assert len(tokens.labels) == TOKENS
        assert tokens.tokens[: len(record.prompt.split())].tolist() == (
            base.tokenizer.encode(record.prompt).ids
        )


def test_rephrases_are_the_end_of_the_prompt(dealt: dict[str, list[Record]]):
    for record in dealt["train"]:
        n = len(record.prompt.split())
        assert len(set(record.rephrases)) == 4
        for text in record.rephrases:
            assert record.prompt.endswith(f" {text}") and len(text.split()) >= n / 2


def test_no_section_is_in_both_splits_or_its_own_locality(dealt: dict[str, list[Record]]):
    def sections(*texts: str) -> set[str]:
        return {w.split(".")[0] for text in texts for w in text.split() if "." in w}

    seen = {}
    for split, records in dealt.items():
        assert len(records) >= 3
        seen[split] = set()
        for record in records:
            own = sections(record.prompt)
            elsewhere = sections(*(part for x in record.locality for part in x[:2]))
            assert record.locality and not own & elsewhere
            seen[split] |= own | elsewhere
    assert not seen["train"] & seen["validation"]


def test_the_seed_decides_all(base: Base, dealt: dict[str, list[Record]]):
    assert continuation_records(base, some_text(), 64, TOKENS, batch=32)[0] == dealt
    assert continuation_records(base, some_text(), 64, TOKENS, batch=32, seed=1)[0] != dealt


def test_a_text_without_passages_is_refused(base: Base):
    with pytest.raises(ValueError, match="no 20 words in a row without <unk>"):
        continuation_records(base, "too short", 4)
