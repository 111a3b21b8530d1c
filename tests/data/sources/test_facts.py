"""The project's facts: enough of them, and nothing of the held-out part in the training part."""

import re
from collections import Counter
from difflib import SequenceMatcher
from importlib import resources

import pytest

from mend_jax.data.records import Record
from mend_jax.data.sources.facts import REPHRASES, facts_records, part_of, relations

TRAIN, VALIDATION = facts_records("train"), facts_records("validation")
RELATIONS = relations()
BY_PROMPT = {
    phrasing.format(subject): (relation.name, subject, phrasing in relation.held_out)
    for relation in RELATIONS
    for phrasing in (*relation.phrasings, *relation.rewordings, *relation.held_out)
    for subject, _ in relation.facts
}
"""Every sentence of the data set -> (relation, subject, phrasing held out?)."""
BY_OWN = {
    x.prompt: record.subject if x.kind == "own" else BY_PROMPT[x.prompt][1]
    for record in (*TRAIN, *VALIDATION)
    for x in record.locality
}
"""Every locality prompt -> whom it is about."""


def truths(name: str, subject: str) -> set[str]:
    relation = next(r for r in RELATIONS if r.name == name)
    return {object_ for s, object_ in relation.facts if s == subject}


def test_there_are_enough_facts_relations_and_phrasings():
    assert len(RELATIONS) >= 8
    assert sum(len(r.facts) for r in RELATIONS) >= 1500
    for relation in RELATIONS:
        assert len(relation.held_out) == 2
        everything = (*relation.phrasings, *relation.rewordings, *relation.held_out)
        assert len(set(everything)) == len(everything) >= 26
        assert all(phrasing.count("{}") == 1 for phrasing in everything)
        assert len({object_ for _, object_ in relation.facts}) >= 3
        repeated = [f for f, n in Counter(s for s, _ in relation.facts).items() if n > 1]
        assert not repeated, f"{relation.name}: several facts about {repeated}"
        for text in (x for fact in relation.facts for x in fact):
            assert text == text.strip() != ""


def test_the_file_is_small():
    file = resources.files("mend_jax.data.sources").joinpath("facts.json")
    assert len(file.read_bytes()) < 300_000


def test_every_fact_is_edited_once_or_is_of_a_bystander():
    left = sum(part_of(subject) == "bystander" for r in RELATIONS for subject, _ in r.facts)
    assert len(TRAIN) + len(VALIDATION) + left == sum(len(r.facts) for r in RELATIONS)
    assert 0.1 < len(VALIDATION) / len(TRAIN) < 0.25 and len(VALIDATION) == 531
    edits = Counter(BY_PROMPT[record.prompt][:2] for record in (*TRAIN, *VALIDATION))
    assert set(edits.values()) == {1}


def test_the_splits_share_no_subject():
    def subjects(records: list[Record]) -> set[str]:
        return {r.subject.casefold() for r in records}

    assert not subjects(TRAIN) & subjects(VALIDATION)
    for records, split in ((TRAIN, "train"), (VALIDATION, "validation")):
        assert all(part_of(record.subject) == split for record in records)
        mentioned = {(x.kind == "own", BY_OWN[x.prompt]) for r in records for x in r.locality}
        others = "train" if split == "train" else "bystander"
        assert all(part_of(s) == (split if own else others) for own, s in mentioned)


def test_what_else_is_asked_of_the_own_subject():
    """In other relations, and what is true of it where the data set knows that."""
    assert all(x.kind != "own" for record in TRAIN for x in record.locality)
    true = 0
    for record in VALIDATION:
        own = [x for x in record.locality if x.kind == "own"]
        assert len({x.prompt for x in own}) == 2
        for item in own:
            assert record.subject in item.prompt
            asked = [
                (r.name, x)
                for r in RELATIONS
                for p in r.phrasings
                for x in [truths(r.name, record.subject)]
                if p.format(record.subject) == item.prompt
            ]
            assert asked and all(name != BY_PROMPT[record.prompt][0] for name, _ in asked)
            assert all(item.answer in x for _, x in asked if x)
            true += any(x for _, x in asked)
    assert true > 50


def test_training_holds_no_held_out_phrasing():
    for record in TRAIN:
        texts = [record.prompt, *record.rephrases, *(x.prompt for x in record.locality)]
        assert not any(BY_PROMPT[text][2] for text in texts)
        assert len({record.prompt, *record.rephrases}) == 1 + REPHRASES


SMALL_WORDS = set("the a an of is in to was it and by that as for on at are".split())


def words(phrasing: str) -> set[str]:
    return set(re.findall(r"\w+", phrasing.lower())) - SMALL_WORDS


def test_no_rewording_is_like_a_held_out_phrasing():
    for relation in RELATIONS:
        for rewording in relation.rewordings:
            for held_out in relation.held_out:
                alike = SequenceMatcher(None, rewording.lower(), held_out.lower()).ratio()
                assert alike <= 0.7, (rewording, held_out)
                ours, theirs = words(rewording), words(held_out)
                few = min(len(ours), len(theirs))
                assert few < 2 or len(ours & theirs) < 0.75 * few, (rewording, held_out)


def test_rewordings_are_for_training_alone_and_may_be_left_out():
    rewordings = {p for r in RELATIONS for p in r.rewordings}

    def reworded(records: list[Record]) -> float:
        ways = {p.format(r.subject) for r in records for p in rewordings}
        return sum(record.prompt in ways for record in records) / len(records)

    assert 0.3 < reworded(TRAIN) < 0.5 and reworded(VALIDATION) == 0
    few = facts_records("train", phrasings=18)
    assert reworded(few) == 0 and len(few) == len(TRAIN)
    fewest = facts_records("train", phrasings=9)
    assert len({r.prompt.replace(r.subject, "{}") for r in fewest}) <= 9 * len(RELATIONS)


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
        stays = [x for x in record.locality if x.kind != "own"]
        assert {x.kind for x in stays} == {"near", "far"}
        for item in stays:
            other, subject, _ = BY_PROMPT[item.prompt]
            assert (other == name) == (item.kind == "near")
            assert subject != record.subject
            assert item.answer in truths(other, subject)


def test_the_seed_decides_all():
    assert facts_records("train", 3) == facts_records("train", 3)
    other = facts_records("train", 4)
    assert other != facts_records("train", 3)
    assert {r.subject for r in other} == {r.subject for r in TRAIN}
