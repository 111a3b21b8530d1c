"""What else is asked of a record's own subject: in other relations, and of nothing else."""

from pathlib import Path
from typing import Literal

import pytest

from mend_jax.data.own_subject import with_own
from mend_jax.data.records import Locality, Record, write_records
from mend_jax.data.sources.base import Reading
from mend_jax.data.sources.registry import read_records

CAPITALS = [("France", "Rome"), ("Japan", "Lyon"), ("Peru", "Oslo")]
AUTHORS = [("Emma", "Defoe"), ("Ulysses", "Austen"), ("Moby Dick", "Joyce")]
RECORDS = [
    *(Record(f"The capital of {s} is", o, (f"{s}'s capital is",), subject=s) for s, o in CAPITALS),
    *(Record(f"{s}, whose capital is", o, subject=s) for s, o in CAPITALS),  # the same relation
    *(Record(f"The author of {s} is", o, subject=s) for s, o in AUTHORS),
]


def test_the_own_subject_in_another_relation():
    for record, given in zip(with_own(RECORDS), RECORDS, strict=True):
        assert record._replace(locality=given.locality) == given
        alike = CAPITALS if (record.subject, record.target) in CAPITALS else AUTHORS
        relation = {target for _, target in alike}
        assert record.locality
        for item in record.locality:
            assert item.kind == "own" and record.subject in item.prompt
            assert item.answer not in relation  # prompts that share an answer may ask the same
        prompts = [x.prompt for x in record.locality]
        assert len(set(prompts)) == len(prompts) <= 2


def test_prompts_of_one_kind_of_answer_are_not_asked_though_they_share_none():
    """Two ways to ask for a country, which a third one has answers of both of."""
    records = [
        Record("Fado is from", "Peru", subject="Fado"),
        Record("Polka began in", "Chad", subject="Polka"),
        Record("Samba comes from", "Peru", subject="Samba"),
        Record("Tango comes from", "Chad", subject="Tango"),
        Record("Jazz is played by", "Ella", subject="Jazz"),
    ]
    fado, *_ = with_own(records)
    assert [item.prompt for item in fado.locality] == ["Fado is played by"]


def test_a_record_without_a_subject_or_with_its_own_questions_stays_as_it_is():
    own = Locality("Emma appeared in", "1815", "own")
    asked = Record("Emma is by", "Defoe", (), (own,), "Emma")
    bare = Record("Water boils at", "50 degrees")
    twice = Record("Emma and Emma are by", "Defoe", subject="Emma")
    found = with_own([*RECORDS, asked, bare, twice])
    assert found[-3:] == [asked, bare, twice]


def test_the_seed_decides():
    assert with_own(RECORDS, 1) == with_own(RECORDS, 1)
    assert any(with_own(RECORDS, seed) != with_own(RECORDS) for seed in range(1, 5))


@pytest.mark.filterwarnings("ignore:.*of 9 records have no")
def test_files_are_scored_with_it_and_trained_without(tmp_path: Path):
    write_records(tmp_path / "records.jsonl", RECORDS)

    def kinds(split: Literal["train", "validation"]) -> set[str]:
        records = read_records(tmp_path / "records.jsonl", Reading(split))
        return {item.kind for record in records for item in record.locality}

    assert kinds("train") == set() and kinds("validation") == {"own"}
