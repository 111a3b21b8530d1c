"""zsRE in both forms: targets, rephrases, locality, and what is left out."""

import json
from pathlib import Path

import pytest

from mend_jax.data.fields import RecordError
from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.base import Reading
from mend_jax.data.sources.registry import read_records

ZSRE = Path(__file__).parents[4] / "shared/data/zsre"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what is said of a file


def test_zsre_rows_with_nothing_to_edit_towards_are_counted(tmp_path: Path):
    path = tmp_path / "zsre.json"
    row = {
        "subject": "UniFirst",
        "src": "What does UniFirst make?",
        "rephrase": "What is made by UniFirst?",
        "alt": "aircraft",
        "loc": "nq question: who wrote it",
        "loc_ans": "nobody",
    }
    read = Record(
        "What does UniFirst make?", "aircraft", ("What is made by UniFirst?",),
        (Locality("nq question: who wrote it", "nobody", "far"),), "UniFirst",
    )  # fmt: skip
    path.write_text(json.dumps([row, row | {"alt": ""}, row, row | {"alt": ""}]))
    with pytest.warns(UserWarning, match=r"zsre.json: 2 of 4 rows .* empty 'alt' .* record 2\)"):
        assert read_records(path) == [read, read]
    path.write_text(json.dumps([row, row | {"loc_ans": ""}]))
    with pytest.raises(RecordError, match=r"zsre.json, record 2: 'loc_ans' is empty"):
        read_records(path)


@pytest.mark.skipif(not ZSRE.is_dir(), reason="the zsRE files are not here")
@pytest.mark.filterwarnings("ignore:.*empty 'alt'")
@pytest.mark.parametrize("name", ["train", "validation"])
def test_all_of_zsre(name: str):
    path = ZSRE / f"{name}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    records = read_records(path)
    assert len(records) == sum(bool(row["alt"]) for row in rows) > 90
    assert all(len(r.rephrases) == len(r.locality) == 1 and r.subject for r in records)


def line(number: int, **fields: object) -> dict[str, object]:
    """A line of KnowledgeEditor's, as published but for its provenance."""
    question = f"Where was person {number} born?"
    return {
        "id": str(number),
        "input": question,
        "output": [{"provenance": [{"title": "T"}]}, {"answer": f"city {number}"}],
        "prediction": "Springfield",
        "alternatives": [f"town {number}", f"village {number}"],
        "filtered_rephrases": [question, f"Person {number} comes from where?"],
        "meta": {"template_questions": [question, f"In what place was person {number} born?"]},
    } | fields


def written(tmp_path: Path, rows: list[dict[str, object]]) -> Path:
    path = tmp_path / "structured_zeroshot-dev-new_annotated_final.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_lines_become_edits_towards_an_alternative(tmp_path: Path):
    path = written(tmp_path, [line(i) for i in range(40)])
    records = read_records(path, Reading(localities=3))
    for i, record in enumerate(records):
        assert record.prompt == f"Where was person {i} born?"
        assert record.rephrases == (f"Person {i} comes from where?",)  # not the input again
        assert record.target in {f"town {i}", f"village {i}"}
        others = {int(pair.prompt.split()[3]): pair.answer for pair in record.locality}
        assert len(others) == 3 and i not in others
        assert all(answer == f"city {number}" for number, answer in others.items())
    assert {record.target.split()[0] for record in records} == {"town", "village"}
    assert read_records(path, Reading(localities=3)) == records
    again = read_records(path, Reading(localities=3, seed=1))
    assert any(a.target != b.target for a, b in zip(records, again, strict=True))
    assert any(a.locality != b.locality for a, b in zip(records, again, strict=True))


def test_lines_without_alternatives_or_rephrases_are_counted(tmp_path: Path):
    question = "Where was person 5 born?"
    rows = [
        line(0),
        line(1, alternatives=[]),
        line(2),
        line(3, filtered_rephrases=[]),
        line(4, alternatives=[""]),
        line(5, filtered_rephrases=[question, ""]),
    ]
    counted = r"4 of 6 rows have no alternative answer or no rephrase \(the first: line 2\)"
    with pytest.warns(UserWarning, match=counted):
        records = read_records(written(tmp_path, rows), Reading(localities=9))
    assert [record.prompt.split()[3] for record in records] == ["0", "2"]
    assert [len(record.locality) for record in records] == [1, 1]  # of each other, all there is
    with pytest.raises(RecordError, match=r"no records in this file; 1 of 1 rows have no altern"):
        read_records(written(tmp_path, rows[1:2]))


def test_another_phrasing_of_the_edit_is_no_locality(tmp_path: Path):
    other = line(1, input="In what place was person 0 born?", output=[{"answer": "city 0"}])
    records = read_records(written(tmp_path, [line(0), other, line(2)]), Reading(localities=9))
    assert [pair.answer for pair in records[0].locality] == ["city 2"]


def test_a_question_that_stands_twice_is_asked_once(tmp_path: Path):
    rows = [line(0), *[line(1), line(2)] * 5]
    record, *_ = read_records(written(tmp_path, rows), Reading(localities=9))
    assert sorted(pair.answer for pair in record.locality) == ["city 1", "city 2"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"input": ""}, "'input' is empty"),
        ({"output": "city"}, "'output' must be a list with an object that has 'answer'"),
        ({"output": [{"provenance": []}]}, "'output' must be a list with an object that has"),
        ({"output": [{"answer": 3}]}, "output: 'answer' must be a text, found int"),
        ({"alternatives": "town"}, "'alternatives' must be a list, found str"),
        ({"filtered_rephrases": [3]}, r"filtered_rephrases\[0\] must be a text"),
        ({"meta": {"template_questions": "q"}}, "meta: 'template_questions' must be a list"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, broken: dict[str, object], message: str):
    path = written(tmp_path, [line(0), line(1, **broken)])
    with pytest.raises(RecordError, match=f"final.jsonl, line 2: {message}"):
        read_records(path)
