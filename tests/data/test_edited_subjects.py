"""Locality prompts about subjects that are edited beside are left out, and counted."""

import numpy as np
import pytest

from mend_jax.data.edited_subjects import Names, without_edited_subjects
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import Locality, Record, of_some_subjects
from mend_jax.data.token_records import TokenRecord

PAIR = Tokens(*(np.zeros(1, np.int32) for _ in range(3)))


def entry(subject: str, *prompts: str, kind: str = "near") -> TokenRecord:
    locality = tuple(Locality(prompt, "x", kind) for prompt in prompts)
    record = Record(f"{subject} is in", "y", locality=locality, subject=subject)
    pairs = tuple(PAIR._replace(lost=prompt) for prompt in prompts)
    return TokenRecord(PAIR, (), pairs, (kind,) * len(prompts), record)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Where is PARIS, please?", {"paris"}),
        ("The Parisian way", set()),
        ("New  York and York", {"new york", "york"}),
        ("It is said that Ur", {"ur"}),
        ("Urban life", set()),
        ("法国的首都北京市", {"北京"}),
        ("C++ is fast", {"c++"}),
        ("", set()),
    ],
)
def test_names_are_whole_words_in_any_case(text: str, wanted: set[str]):
    names = Names(["Paris", "New York", "York", "Ur", "北京", "C++", "", " "])
    assert names.within(text) == wanted


def test_what_names_another_edited_subject_is_left_out_and_counted():
    a = entry("Rome", "Oslo is in", "Lima is in", "Rome was")
    b = entry("Oslo", "Quito is in", "in Rome there is")
    c = entry("Lima", "Rome is in")
    kept, count = without_edited_subjects([a, b, c], 2)
    texts = [[item.prompt for item in one.record.locality] for one in kept]
    assert texts == [["Lima is in", "Rome was"], ["Quito is in"], ["Rome is in"]] and count == 2
    for one in kept:  # tokens, kinds and texts go together
        assert [pair.lost for pair in one.locality] == [x.prompt for x in one.record.locality]
        assert len(one.kinds) == len(one.locality)
    assert without_edited_subjects([a, b, c], 1) == ([a, b, c], 0)
    beside = without_edited_subjects([a], 1, [c])
    assert [x.prompt for x in beside[0][0].record.locality] == ["Oslo is in", "Rome was"]
    assert beside[1] == 1


def test_questions_about_the_own_subject_stay():
    one = entry("Rome", "Rome and Oslo", kind="own")
    assert without_edited_subjects([one, entry("Oslo")], 2) == ([one, entry("Oslo")], 0)


def test_a_share_of_the_subjects_is_chosen_by_name():
    records = [Record(f"{i} {j}", "x", subject=f"Person {i}") for i in range(400) for j in (0, 1)]
    some = of_some_subjects(records, 0.25)
    subjects = {record.subject for record in some}
    assert 70 < len(subjects) < 130 and len(some) == 2 * len(subjects)
    assert of_some_subjects(records[::-1], 0.25) == some[::-1]
    assert {r.subject for r in of_some_subjects(records, 0.5)} > subjects
    assert of_some_subjects(records, 1.0) == records
