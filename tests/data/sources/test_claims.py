"""Claims about the facts: verdicts are true, edits flip them, subjects stay in one split."""

import pytest

from mend_jax.data.sources.claims import VERDICTS, claim, claim_records
from mend_jax.data.sources.facts import in_split, relations


@pytest.fixture(scope="module")
def true() -> set[str]:
    """Every true claim, in every phrasing."""
    return {
        claim(phrasing, *fact)
        for relation in relations()
        for fact in relation.facts
        for phrasing in (*relation.phrasings, *relation.rewordings, *relation.held_out)
    }


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_edit_flips_a_verdict_and_locality_keeps_the_true_one(true: set[str], split: str):
    records = claim_records(split)
    for record in records:
        wrong = VERDICTS[record.prompt not in true]
        assert record.target == wrong
        assert {text in true for text in record.rephrases} == {record.prompt in true}
        for item in record.locality:
            assert item.answer == VERDICTS[item.prompt in true]
        assert in_split(record.subject, split)
    share = sum(record.target == VERDICTS[0] for record in records) / len(records)
    assert 0.4 < share < 0.6


def test_held_out_phrasings_are_for_validation_only():
    held_out = {p.partition("{}")[2] for r in relations() for p in r.held_out}
    ours = {p.partition("{}")[2] for r in relations() for p in (*r.phrasings, *r.rewordings)}
    only = {end for end in held_out - ours if len(end) > 12}
    texts = [t for r in claim_records("train") for t in (r.prompt, *r.rephrases)]
    assert only and not any(end in text for text in texts for end in only)


def test_the_same_seed_gives_the_same_claims():
    assert claim_records("validation", 3) == claim_records("validation", 3)
    assert claim_records("validation", 3) != claim_records("validation", 4)
