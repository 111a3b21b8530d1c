"""Records: what is written is read, and a bad line is told where it is bad."""

from functools import partial
from pathlib import Path

import pytest
from words import ids, words

from mend_jax.data.encoding import encode_pair
from mend_jax.data.fields import RecordError
from mend_jax.data.records import (
    Locality,
    Record,
    Rephrase,
    drop_known_subjects,
    parse_record,
    rephrases_of,
    to_json,
    write_records,
)
from mend_jax.data.sources.registry import read_records
from mend_jax.data.token_records import encode_records

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

pytestmark = pytest.mark.filterwarnings("ignore:.*records have no ")


@pytest.mark.parametrize(
    "record",
    [
        FULL,
        Record("prompt", "target"),
        Record('“quoted” \\ "so" \t tab', "🙂 emoji"),
        Record("separators \u2028 and \x85 and \x1e inside", "no line\nends \u2029 a record"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # what is said of a file
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
    path.write_text('\n{"prompt": "a", "target": "b"}\n  \n{"prompt": "c", "target": "d"}')
    assert read_records(path) == [Record("a", "b"), Record("c", "d")]


def test_a_file_of_windows(tmp_path: Path):
    """Byte order mark and \\r\\n."""
    path = tmp_path / "records.jsonl"
    path.write_bytes('\ufeff{"prompt": "é", "target": "b"}\r\n\r\n'.encode())
    assert read_records(path) == [Record("é", "b")]


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
            "locality[0]: 'kind' must be 'near', 'far' or 'own', found 'Far'",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(RecordError) as error:
        read_records(path)
    assert str(error.value).startswith(f"{path}, line 3: ") and message in str(error.value)


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


@pytest.mark.filterwarnings("ignore::UserWarning")  # what is said of a file
def test_texts_are_kept_as_they_are_written(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    turn = "<|user|>\nWho?\n<|assistant|>\n"
    record = Record(turn, " Rome\n", (f" {turn}",), (Locality(turn, "\tLima "),), separator="")
    write_records(path, [record])
    wanted = record._replace(locality=(Locality(turn, "\tLima "),))
    assert read_records(path) == [wanted]


@pytest.mark.parametrize("separator", [None, "", " ", "\n"])
@pytest.mark.parametrize("of_locality", [None, "", " -> "])
def test_separators_are_read_as_they_are_written(
    tmp_path: Path, separator: str | None, of_locality: str | None
):
    record = Record("p", "t", ("r",), (Locality("a", "b", "", of_locality),), "", separator)
    write_records(tmp_path / "records.jsonl", [record])
    assert read_records(tmp_path / "records.jsonl") == [record]


def test_the_separator_of_a_record_is_that_of_its_locality_unless_it_has_its_own():
    row = {"prompt": "p", "target": "t", "separator": ""}
    locality: list[dict[str, object]] = [{"prompt": "a", "answer": "b"}]
    locality += [locality[0] | {"separator": x} for x in (None, " ")]
    found = parse_record(row | {"locality": locality}).locality
    assert [item.separator for item in found] == ["", None, " "]
    for bad in (row | {"separator": 3}, row | {"locality": [locality[0] | {"separator": []}]}):
        with pytest.raises(RecordError, match="'separator' must be a text, or null, found"):
            parse_record(bad, "here")


@pytest.mark.parametrize("place", ["{}", "{subject}", "[X]"])
def test_a_place_for_the_subject_is_filled_in(place: str):
    row = {
        "prompt": f"The capital of {place} is",
        "target": "Rome",
        "subject": "France",
        "rephrases": [f"{place}'s capital is", {"prompt": f"{place}: {place}", "target": "t"}],
        "locality": [{"prompt": f"The language of {place} is", "answer": "French"}],
    }
    record = parse_record(row)
    assert record.prompt == "The capital of France is"
    assert record.rephrases == ("France's capital is", Rephrase("France: France", "t"))
    assert record.locality[0].prompt == "The language of France is"
    without = {k: v for k, v in row.items() if k != "subject"}
    with pytest.raises(RecordError, match=r"^here: .* in the subject's place, and the record no"):
        parse_record(without, "here")


def test_a_prompt_that_has_the_subject_keeps_its_braces():
    row = {"prompt": "In d = {}, the type of d is", "target": "dict", "subject": "d"}
    assert parse_record(row).prompt == row["prompt"]
