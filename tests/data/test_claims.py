"""Claims about the facts: verdicts are true, edits flip them, subjects stay in one split."""

import pytest

from mend_jax.data.claims import VERDICTS, claim_records
from mend_jax.data.facts import in_split, relations


def truths() -> dict[str, bool]:
    """Every claim that can be made, and whether it is true."""
    found: dict[str, bool] = {}
    for relation in relations():
        objects = {o for _, o in relation.facts}
        for subject in {s for s, _ in relation.facts}:
            true = {o for s, o in relation.facts if s == subject}
            for phrasing in (*relation.phrasings, *relation.held_out):
                for object_ in objects:
                    found[f"{phrasing.format(subject)} {object_}."] = object_ in true
    return found


@pytest.fixture(scope="module")
def known() -> dict[str, bool]:
    return truths()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_edit_flips_a_true_verdict_and_locality_keeps_it(known: dict[str, bool], split):
    records = claim_records(split)
    for record in records:
        wrong = VERDICTS[not known[record.prompt]]
        assert record.target == wrong
        assert {known[text] for text in record.rephrases} == {known[record.prompt]}
        for item in record.locality:
            assert item.answer == VERDICTS[known[item.prompt]]
            assert record.subject not in item.prompt or len(record.subject) < 5
        assert in_split(record.subject, split)
    share = sum(record.target == VERDICTS[0] for record in records) / len(records)
    assert 0.4 < share < 0.6


def test_held_out_phrasings_are_for_validation_only():
    held_out = {p.partition("{}")[2] for r in relations() for p in r.held_out}
    ours = {p.partition("{}")[2] for r in relations() for p in r.phrasings}
    only = {end for end in held_out - ours if len(end) > 12}
    texts = [t for r in claim_records("train") for t in (r.prompt, *r.rephrases)]
    assert only and not any(end in text for text in texts for end in only)


def test_the_same_seed_gives_the_same_claims():
    assert claim_records("validation", 3) == claim_records("validation", 3)
    assert claim_records("validation", 3) != claim_records("validation", 4)
