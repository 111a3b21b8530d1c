"""The project's facts: enough of them, and nothing of the held-out part in the training part."""

from collections import Counter
from importlib import resources

import pytest

from mend_jax.data.records import Record
from mend_jax.data.sources.facts import REPHRASES, facts_records, in_split, relations

TRAIN, VALIDATION = facts_records("train"), facts_records("validation")
RELATIONS = relations()
BY_PROMPT = {
    phrasing.format(subject): (relation.name, subject, phrasing in relation.held_out)
    for relation in RELATIONS
    for phrasing in (*relation.phrasings, *relation.held_out)
    for subject, _ in relation.facts
}
"""Every sentence of the data set -> (relation, subject, phrasing held out?)."""


def truths(name: str, subject: str) -> set[str]:
    relation = next(r for r in RELATIONS if r.name == name)
    return {object_ for s, object_ in relation.facts if s == subject}


def test_there_are_enough_facts_relations_and_phrasings():
    assert len(RELATIONS) >= 8
    assert sum(len(r.facts) for r in RELATIONS) >= 1500
    for relation in RELATIONS:
        assert len(relation.held_out) == 2
        everything = (*relation.phrasings, *relation.held_out)
        assert len(set(everything)) == len(everything) >= 6
        assert all(phrasing.count("{}") == 1 for phrasing in everything)
        assert len({object_ for _, object_ in relation.facts}) >= 3
        repeated = [f for f, n in Counter(s for s, _ in relation.facts).items() if n > 1]
        assert not repeated, f"{relation.name}: several facts about {repeated}"
        for text in (x for fact in relation.facts for x in fact):
            assert text == text.strip() != ""


def test_the_file_is_small():
    file = resources.files("mend_jax.data.sources").joinpath("facts.json")
    assert len(file.read_bytes()) < 300_000


def test_every_fact_is_edited_once():
    assert len(TRAIN) + len(VALIDATION) == sum(len(r.facts) for r in RELATIONS)
    assert 0.1 < len(VALIDATION) / len(TRAIN) < 0.25
    edits = Counter(BY_PROMPT[record.prompt][:2] for record in (*TRAIN, *VALIDATION))
    assert set(edits.values()) == {1}


def test_the_splits_share_no_subject():
    def subjects(records: list[Record]) -> set[str]:
        return {r.subject.casefold() for r in records}

    assert not subjects(TRAIN) & subjects(VALIDATION)
    for records, split in ((TRAIN, "train"), (VALIDATION, "validation")):
        mentioned = {BY_PROMPT[x.prompt][1] for r in records for x in r.locality}
        assert all(in_split(s, split) for s in mentioned | {r.subject for r in records})


def test_training_holds_no_held_out_phrasing():
    for record in TRAIN:
        texts = [record.prompt, *record.rephrases, *(x.prompt for x in record.locality)]
        assert not any(BY_PROMPT[text][2] for text in texts)
        assert len({record.prompt, *record.rephrases}) == 1 + REPHRASES


def test_validation_asks_in_both_held_out_phrasings_and_edits_in_others():
    for record in VALIDATION:
        assert not BY_PROMPT[record.prompt][2]
        assert [BY_PROMPT[text][2] for text in record.rephrases] == [True, True]


@pytest.mark.parametrize("records", [TRAIN, VALIDATION], ids=["train", "validation"])
def test_targets_are_false_and_of_the_same_relation(records: list[Record]):
    objects = {r.name: {object_ for _, object_ in r.facts} for r in RELATIONS}
    for record in records:
        name, subject, _ = BY_PROMPT[record.prompt]
        assert subject == record.subject
        assert record.target in objects[name] - truths(name, subject)
        for text in record.rephrases:
            assert BY_PROMPT[text][:2] == (name, subject)


@pytest.mark.parametrize("seed", range(4))
def test_near_is_the_relation_and_far_is_another(seed: int):
    for record in (*facts_records("train", seed), *facts_records("validation", seed)):
        name = BY_PROMPT[record.prompt][0]
        kinds = [x.kind for x in record.locality]
        assert set(kinds) == {"near", "far"}
        for item in record.locality:
            other, subject, _ = BY_PROMPT[item.prompt]
            assert (other == name) == (item.kind == "near")
            assert subject != record.subject
            assert item.answer in truths(other, subject)


def test_the_seed_decides_all():
    assert facts_records("train", 3) == facts_records("train", 3)
    other = facts_records("train", 4)
    assert other != facts_records("train", 3)
    assert {r.subject for r in other} == {r.subject for r in TRAIN}
