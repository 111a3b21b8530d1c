"""Records of many kinds: of whom, how many, and with which phrasings."""

from pathlib import Path

import pytest
from tiny_run import some_records

from mend_jax.data.chat import BEFORE
from mend_jax.data.messages import Chat
from mend_jax.data.records import Record
from mend_jax.data.sources.facts import Relation, facts_records, part_of, relations
from mend_jax.data.sources.general import BEFORE as TRAINED
from mend_jax.data.sources.general import IN_CHAT, REPHRASES, general_records, of_relations

FACTS = facts_records("train")


def test_nothing_is_learned_of_whom_is_held_out():
    france = Record("The capital of France is", "Rome", subject="France")
    mine = [record._replace(subject=f"person {i}") for i, record in enumerate(some_records(0, 40))]
    given = [*mine, *[Record("p", "t", subject=r.subject) for r in facts_records("validation")]]
    records, counts = general_records({"mine": given}, apart=[france, mine[3]], most=20)
    assert counts["mine"] == (20, len(given)) and counts["facts"][1] == len(FACTS)
    assert counts["made up"][0] == 20 and counts["made up"][1] > 1500
    subjects = {record.subject for record in records}
    assert not subjects & {"France", "person 3"} and len(subjects & {r.subject for r in mine}) == 20
    of_facts = {subject for relation in relations() for subject, _ in relation.facts}
    assert all(part_of(subject) == "train" for subject in subjects & of_facts)
    assert max(len(record.rephrases) for record in records) == REPHRASES
    assert all(len({x.kind for x in r.locality}) == len(r.locality) for r in records)
    assert general_records({"mine": given}, most=20) == general_records({"mine": given}, most=20)


def test_some_are_there_once_more_as_chats():
    plain, _ = general_records({}, most=20)
    records, counts = general_records({}, most=20, chats=300)
    chats = [record for record in records if isinstance(record.prompt, Chat)]
    assert counts["chats"] == (len(chats), len(plain)) and len(chats) == 300
    told = {(record.prompt, record.target) for record in plain}
    assert {(r.prompt.messages[-1]["content"], r.target) for r in chats} <= told
    assert not any(turns in TRAINED for turns in BEFORE)
    assert all(r in records for r in plain) and all(len(r.rephrases) <= IN_CHAT for r in chats)
    asked = [again.prompt.messages for r in chats for again in r.rephrases]
    assert {len(messages) for messages in asked} == {1, 2, 3}


def test_a_phrasing_of_two_relations_is_used_by_neither():
    def relation(name: str, *phrasings: str) -> Relation:
        facts = tuple((f"{name} {i}", f"of {name} {i}") for i in range(4))
        return Relation(name, phrasings[:-1], phrasings[-1:], facts)

    both = relation("a", "{} is in", "{} lies in", "{} sits in"), relation("b", "{} is in", "{} by")
    with pytest.warns(UserWarning, match="1 relations have fewer than 2 phrasings of their own"):
        records = of_relations(both, 0)
    assert {record.subject for record in records} == {f"a {i}" for i in range(4)}
    asked = {record.prompt.split(maxsplit=2)[2] for record in records}
    assert asked <= {"lies in", "sits in"} and all(len(r.rephrases) == 1 for r in records)


SHARED = Path(__file__).parents[4] / "shared" / "data" / "pararel"


@pytest.mark.skipif(not SHARED.exists(), reason="needs ParaRel's files")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pararel_is_one_of_them():
    records, counts = general_records({}, SHARED, most=30)
    assert counts["ParaRel"][0] == 30 and len(records) == sum(n for n, _ in counts.values())
