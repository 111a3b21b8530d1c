"""Records: what is written is read, in both formats, and a bad file is told where it is bad."""

import json
from functools import partial
from pathlib import Path

import pytest
from words import ids, words

from mend_jax.data.batches import encode_records
from mend_jax.data.codec import encode_pair
from mend_jax.data.records import (
    Locality,
    Record,
    RecordError,
    Rephrase,
    drop_known_subjects,
    parse_record,
    read_records,
    rephrases_of,
    to_json,
    write_records,
)

FULL = Record(
    "The capital of Brazil is",
    "Brasília",
    ("Brazil's capital city is", "O governo fica em"),
    (
        Locality("The capital of Perú is", "Lima", "near"),
        Locality("Gold has the symbol", "Au", "far"),
        Locality("水の色は", "青"),
    ),
    "Brazil",
)
SHARED = Path(__file__).parents[3] / "shared/data"
COUNTERFACT = SHARED / "counterfact"
ZSRE = SHARED / "zsre"


@pytest.mark.parametrize(
    "record",
    [
        FULL,
        Record("prompt", "target"),
        Record("“quoted” \\ \"so\" \t tab", "🙂 emoji"),
        Record("separators \u2028 and \x85 and \x1e inside", "no line\nends \u2029 a record"),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, record: Record):
    path = tmp_path / "records.jsonl"
    write_records(path, [record, FULL])
    assert read_records(path) == [record, FULL]
    assert path.read_bytes().count(b"\n") == 2  # one object a line


def test_the_json_of_a_record():
    row = to_json(FULL)
    assert list(row) == ["prompt", "target", "rephrases", "locality", "subject"]
    assert row["locality"][1:] == [
        {"prompt": "Gold has the symbol", "answer": "Au", "kind": "far"},
        {"prompt": "水の色は", "answer": "青"},
    ]
    assert "subject" not in to_json(Record("p", "t"))
    assert parse_record(row) == FULL


def test_optional_fields_may_be_absent_and_blank_lines_stand_between(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    path.write_text('\n{"prompt": " a ", "target": "b"}\n  \n{"prompt": "c", "target": "d"}')
    assert read_records(path) == [Record("a", "b"), Record("c", "d")]


def test_a_file_of_windows(tmp_path: Path):
    """Byte order mark and \\r\\n."""
    path = tmp_path / "records.jsonl"
    path.write_bytes('\ufeff{"prompt": "é", "target": "b"}\r\n\r\n'.encode())
    assert read_records(path) == [Record("é", "b")]


def test_counterfact(tmp_path: Path):
    path = tmp_path / "train.json"
    rows = [
        {
            "case_id": 2,
            "prompt": "Toko Yasuda, the",
            "target_new": "piano",
            "subject": "Toko Yasuda",
            "ground_truth": "guitar",
            "rephrase_prompt": "Toko Yasuda is incredible at",
            "locality_prompt": "John Lennon performs on the",
            "locality_ground_truth": "guitar",
        },
        {"prompt": "p", "target_new": "t"},
    ]
    path.write_text(json.dumps(rows, indent=1))
    lennon = Locality("John Lennon performs on the", "guitar")
    assert read_records(path) == [
        Record(
            "Toko Yasuda, the", "piano", ("Toko Yasuda is incredible at",), (lennon,), "Toko Yasuda"
        ),
        Record("p", "t"),
    ]


@pytest.mark.skipif(not COUNTERFACT.is_dir(), reason="the full CounterFact files are not here")
@pytest.mark.parametrize("name", ["train", "validation"])
def test_all_of_counterfact(name: str):
    path = COUNTERFACT / f"{name}.json"
    records = read_records(path)
    assert len(records) == len(json.loads(path.read_text(encoding="utf-8"))) > 1000
    assert all(len(r.rephrases) == len(r.locality) == 1 and r.subject for r in records)


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
        (Locality("nq question: who wrote it", "nobody"),), "UniFirst",
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


def test_known_subjects_are_dropped_and_counted():
    known = [Record("a", "x", subject="Paris"), Record("no subject", "x")]
    new = Record("b", "y", subject="Lima")
    records = [Record("b", "y", subject=" PARIS "), new, Record("No Subject", "z")]
    assert drop_known_subjects(records, known) == ([new], 2)


GOOD = '{"prompt": "p", "target": "t"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "p"', "not valid JSON"),
        ('"text"', "expected a JSON object, found str"),
        ('{"target": "t"}', "the field 'prompt' is missing"),
        ('{"prompt": "p"}', "the field 'target' is missing"),
        ('{"prompt": " ", "target": "t"}', "'prompt' is empty"),
        ('{"prompt": "p", "target": ""}', "'target' is empty"),
        ('{"prompt": "p", "target": 3}', "'target' must be a text, found int"),
        ('{"prompt": ["p"], "target": "t"}', "'prompt' must be a text, found list"),
        ('{"prompt": "p", "target": "t", "subject": 1}', "'subject' must be a text, found int"),
        ('{"prompt": "p", "target": "t", "rephrases": "r"}', "'rephrases' must be a list, found"),
        ('{"prompt": "p", "target": "t", "rephrases": ["r", ""]}', "rephrases[1] must be a text"),
        ('{"prompt": "p", "target": "t", "rephrases": [2]}', "rephrases[0] must be a text"),
        ('{"prompt": "p", "target": "t", "locality": {}}', "'locality' must be a list, found dict"),
        ('{"prompt": "p", "target": "t", "locality": ["x"]}', "locality[0] must be an object"),
        (
            '{"prompt": "p", "target": "t", "locality": [{"prompt": "x"}]}',
            "locality[0]: the field 'answer' is missing",
        ),
        (
            '{"prompt": "p", "target": "t", "locality": '
            '[{"prompt": "x", "answer": "y", "kind": "Far"}]}',
            "locality[0]: 'kind' must be 'near' or 'far', found 'Far'",
        ),
        ('{"prompt": "p", "target_new": {"str": "t"}}', "'target_new' must be a text, found dict"),
        (
            '{"prompt": "p", "target_new": "t", "locality_prompt": "x"}',
            "the field 'locality_ground_truth' is missing",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(RecordError) as error:
        read_records(path)
    assert str(error.value).startswith(f"{path}, line 3: ") and message in str(error.value)


def test_a_bad_list_is_named(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text(f"[{GOOD},\n {GOOD[:-5]}, ]")
    with pytest.raises(RecordError, match=r"mine.json, line 2: not valid JSON"):
        read_records(path)
    path.write_text(f'[{GOOD},\n {{"prompt": "p"}}]')
    with pytest.raises(RecordError, match=r"mine.json, record 2: the field 'target' is missing"):
        read_records(path)


@pytest.mark.parametrize("text", ["", "\n \n", "[]"])
def test_a_file_without_records(tmp_path: Path, text: str):
    path = tmp_path / "empty.jsonl"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"empty.jsonl: no records in this file"):
        read_records(path)


def test_a_file_that_is_no_text(tmp_path: Path):
    path = tmp_path / "latin1.jsonl"
    path.write_bytes('{"prompt": "é", "target": "t"}'.encode("latin-1"))
    with pytest.raises(RecordError, match=r"latin1.jsonl: not UTF-8"):
        read_records(path)


def test_no_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"absent\.jsonl"):
        read_records(tmp_path / "absent.jsonl")


def test_a_rephrase_may_have_a_target_of_its_own(tmp_path: Path):
    record = Record("paris is", "lima", ("paris called", Rephrase("two paris", "two lima")))
    path = tmp_path / "records.jsonl"
    write_records(path, [record])
    assert read_records(path) == [record]
    assert rephrases_of(record) == (("paris called", "lima"), ("two paris", "two lima"))
    encoded, _ = encode_records([record], partial(encode_pair, words()))
    assert [pair.labels.tolist() for pair in encoded[0].rephrases] == [ids("lima"), ids("two lima")]
    with pytest.raises(RecordError, match=r"rephrases\[0\]: the field 'target' is missing"):
        parse_record({"prompt": "p", "target": "t", "rephrases": [{"prompt": "r"}]})
