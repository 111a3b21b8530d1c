"""Natural Questions as locality: in place of a file's own, dealt to training and scoring."""

import json
from pathlib import Path

import pytest

from mend_jax.data.fields import RecordError
from mend_jax.data.records import Locality, Record, write_records
from mend_jax.data.sources.base import Reading
from mend_jax.data.sources.registry import read_records, replace_locality

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what is said of a file

NQ = Path(__file__).parents[4] / "shared/data/nq/nq_open_dev.jsonl"
OWN = Record("p", "t", ("r",), (Locality("own", "o", "near"),))


def lines(tmp_path: Path, count: int) -> Path:
    path = tmp_path / "nq.jsonl"
    rows = [{"question": f"who is n{i}", "answer": [f"not n{i}", f"n{i}"]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_it_takes_the_place_of_a_files_own(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    write_records(path, [OWN] * 20)
    reading = Reading(locality=lines(tmp_path, 50), localities=3)
    records = read_records(path, reading)
    assert [record._replace(locality=OWN.locality) for record in records] == [OWN] * 20
    for record in records:
        assert len(set(record.locality)) == 3
        for question, answer, kind, _ in record.locality:
            assert question == f"Who is {answer}?" and kind == "far"  # the shortest answer
    assert len({record.locality for record in records}) > 10
    assert read_records(path, reading) == records
    assert read_records(path, reading._replace(seed=1)) != records


def test_both_forms_are_the_same_questions(tmp_path: Path):
    whole = tmp_path / "train.json"
    questions, answers = zip(*((f"who is n{i}", f"n{i}") for i in range(50)), strict=True)
    for indent in (None, 1):
        whole.write_text(json.dumps({"questions": questions, "answers": answers}, indent=indent))
        of_lines, of_object = (
            replace_locality([OWN] * 5, Reading(locality=path))
            for path in (lines(tmp_path, 50), whole)
        )
        assert of_lines == of_object


@pytest.mark.parametrize(
    ("question", "sentence"),
    [("who is it", "Who is it?"), ("Who is it?", "Who is it?"), ("élan ?", "Élan?"), ("я", "Я?")],
)
def test_the_form_of_a_question(tmp_path: Path, question: str, sentence: str):
    path = tmp_path / "nq.jsonl"
    path.write_text(json.dumps({"question": question, "answer": ["a"]}), encoding="utf-8")
    for form, text in (("sentence", sentence), ("exact", question)):
        found = []
        for split in ("train", "validation"):  # it stands in one of them
            try:
                reading = Reading(split, locality=path, questions=form)
                found += replace_locality([OWN], reading)[0].locality
            except RecordError as error:
                assert "none of 1 questions is for" in str(error)
        assert found == [Locality(text, "a", "far")]


def test_a_question_that_is_edited_is_no_locality(tmp_path: Path):
    pool = [f"Who is n{i}?" for i in range(200)]
    edit = Record(pool[0], "t", tuple(pool[1:]))
    reading = Reading(locality=lines(tmp_path, 210), localities=50)
    (record,) = replace_locality([edit], reading)
    assert 0 < len(record.locality) <= 10
    assert not {pair.prompt for pair in record.locality} & set(pool)


def test_training_and_scoring_ask_other_questions(tmp_path: Path):
    path = lines(tmp_path, 1000)
    asked = [
        {
            pair.prompt
            for record in replace_locality([OWN], Reading(split, locality=path, localities=1000))
            for pair in record.locality
        }
        for split in ("train", "validation")
    ]
    assert len(asked[0] | asked[1]) == 1000 and not asked[0] & asked[1]
    assert 0.1 < len(asked[1]) / 1000 < 0.2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answer": "a"}, "line 2: 'answer' must be a list, found str"),
        ({"question": "q", "answer": []}, "line 2: 'answer' is empty"),
        ({"question": "", "answer": ["a"]}, "line 2: 'question' is empty"),
        ({"question": "q", "answer": ["a", ""]}, r"line 2: answer\[1\] must be a text that is not"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: dict[str, object], message: str):
    path = lines(tmp_path, 1)
    path.write_text(path.read_text() + json.dumps(row))
    with pytest.raises(RecordError, match=f"nq.jsonl, {message}"):
        replace_locality([OWN], Reading(locality=path))


def test_edits_and_questions_are_not_confused(tmp_path: Path):
    path = lines(tmp_path, 3)
    with pytest.raises(RecordError, match="nq.jsonl: Natural Questions has no edits; .* locality"):
        read_records(path)
    records = tmp_path / "records.jsonl"
    write_records(records, [OWN])
    with pytest.raises(RecordError, match="records.jsonl: .* cannot be given as locality"):
        read_records(records, Reading(locality=records))
    uneven = tmp_path / "train.json"
    uneven.write_text('{"questions": ["a", "b"], "answers": ["c"]}')
    with pytest.raises(RecordError, match="train.json, line 1: there are 2 'questions', 1 'answ"):
        read_records(records, Reading(locality=uneven))


@pytest.mark.skipif(not NQ.is_file(), reason="the Natural Questions file is not here")
@pytest.mark.parametrize("split", ["train", "validation"])
def test_all_of_natural_questions(split: str):
    records = replace_locality([OWN] * 50, Reading(split, locality=NQ, localities=8))
    for record in records:
        assert len({pair.prompt for pair in record.locality}) == 8
        assert all(pair.prompt.endswith("?") and pair.answer for pair in record.locality)
