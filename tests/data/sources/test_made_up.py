"""Relations of which no truth is known: each is asked in several ways, of nobody held out."""

from mend_jax.data.sources.facts import part_of, relations
from mend_jax.data.sources.made_up import SUBJECTS, made_up_relations

RELATIONS = made_up_relations()
OF_FACTS = {subject for relation in relations() for subject, _ in relation.facts}
PHRASINGS = [phrasing for relation in RELATIONS for phrasing in relation.phrasings]


def test_there_are_many_each_with_phrasings_of_its_own():
    assert len(RELATIONS) >= 150
    assert len(set(PHRASINGS)) == len(PHRASINGS)
    assert all(phrasing.count("{}") == 1 for phrasing in PHRASINGS)
    assert all(phrasing == phrasing.strip() for phrasing in PHRASINGS)
    assert min(len(relation.phrasings) for relation in RELATIONS) >= 4
    facts = {p for r in relations() for p in (*r.phrasings, *r.rewordings, *r.held_out)}
    assert not facts & set(PHRASINGS)


def test_an_edit_may_say_several_things_of_each_subject():
    for relation in RELATIONS:
        subjects = [subject for subject, _ in relation.facts]
        assert len(set(subjects)) == len(subjects) == min(SUBJECTS, len(subjects)) >= 10
        assert len({object_ for _, object_ in relation.facts}) >= 2
        assert all(text == text.strip() != "" for fact in relation.facts for text in fact)


def test_nobody_is_among_them_who_is_held_out_of_the_facts():
    subjects = {subject for relation in RELATIONS for subject, _ in relation.facts}
    assert all(part_of(subject) == "train" for subject in subjects & OF_FACTS)
    assert subjects & OF_FACTS and subjects - OF_FACTS


def test_the_seed_decides():
    assert made_up_relations(1) == made_up_relations(1) != RELATIONS
