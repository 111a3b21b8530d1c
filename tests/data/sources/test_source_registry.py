"""Sources: recognised from the content of a file; what fits none is told what is nearest."""

import importlib
import json
import pkgutil
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import pytest

from mend_jax.data import sources
from mend_jax.data.fields import RecordError
from mend_jax.data.records import Locality, Record
from mend_jax.data.sources import registry
from mend_jax.data.sources.base import Answers, Read, Reading, Row, Source
from mend_jax.data.sources.registry import SOURCES, read_noted, read_records

GOOD = '{"prompt": "p", "target": "t"}'

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what is said of a file


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


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "subject": "s"}, "'target' is missing (the nearest format: a record of"),
        ({"src": "q", "rephrase": "r"}, "'alt' is missing (the nearest format: zsRE, MEND's"),
        ({"target_new": "t", "subject": "s"}, "'prompt' is missing (the nearest format: Counter"),
        ({"claim": "c", "id": 3}, "'label' is missing (the nearest format: FEVER"),
        (
            {"input": "i", "output": [], "alternatives": []},
            "'filtered_rephrases' is missing (the nearest format: zsRE or FEVER",
        ),
        (
            {"original": [], "completions": []},
            "'n_tokens' is missing (the nearest format: Wikitext",
        ),
        ({"question": "q"}, "'answer' is missing (the nearest format: Natural Questions, with"),
        ({"answers": []}, "'questions' is missing (the nearest format: Natural Questions in one"),
    ],
)
def test_a_file_that_fits_none_is_told_the_nearest(
    tmp_path: Path, row: dict[str, object], message: str
):
    path = tmp_path / "mine.json"
    for text, place in (
        (json.dumps(row), "line 1"),
        (f"\n{json.dumps(row)}\n{GOOD}", "line 2"),
        (json.dumps([row]), "record 1"),
        (json.dumps(row, indent=2), "the object"),
    ):
        path.write_text(text)
        with pytest.raises(RecordError) as error:
            read_records(path)
        assert str(error.value).startswith(f"{path}, {place}: the field {message}")


def test_a_file_of_nothing_known(tmp_path: Path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "t", "label_id": 3}')
    with pytest.raises(RecordError) as error:
        read_records(path)
    told = str(error.value)
    assert told.startswith(f"{path}, line 1: no known format has any of these fields: text, label")
    assert "CounterFact (prompt, target_new); " in told


def test_the_same_records_as_lines_list_and_object(tmp_path: Path):
    path = tmp_path / "mine"
    row = {"prompt": "p", "target": "t", "rephrases": ["r"]}
    for text in (
        json.dumps(row),
        json.dumps([row]),
        json.dumps([row], indent=2),
        "\n" + json.dumps(row, indent=2),
        json.dumps(row) + "\r\n\r\n",
    ):
        path.write_text(text, newline="")
        assert read_records(path) == [Record("p", "t", ("r",))]


def test_other_fields_do_not_hide_a_format(tmp_path: Path):
    """All fields of one format weigh more than many of another."""
    path = tmp_path / "mine.jsonl"
    more = {"input": "i", "output": "o", "alternatives": []}
    path.write_text(json.dumps(more | {"prompt": "p", "target": "t"}))
    assert read_records(path) == [Record("p", "t")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"prompt": "p"\n' + GOOD, 1),
        (GOOD + "\n\n" + '{"prompt": "p"\n' + GOOD, 3),
        ('{\n "prompt": "p",\n "target": }', 3),
        (f"[{GOOD},\n{GOOD}\n{GOOD}]", 3),
    ],
)
def test_broken_json_is_told_its_line(tmp_path: Path, text: str, line: int):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(RecordError, match=rf"mine.jsonl, line {line}: not valid JSON"):
        read_records(path)


def test_records_without_rephrases_or_locality_are_counted(tmp_path: Path):
    path = tmp_path / "mine.jsonl"
    with_both = '{"prompt": "p", "target": "t", "rephrases": ["r"], "locality": '
    with_both += '[{"prompt": "a", "answer": "b"}]}'
    another = GOOD.replace('"p"', '"q"')
    path.write_text(f"{GOOD}\n{with_both}\n{another}")
    with pytest.warns(UserWarning) as seen:
        read_records(path)
    assert [str(warning.message) for warning in seen] == [
        f"{path}: 2 of 3 records have no rephrases",
        f"{path}: 2 of 3 records have no locality",
    ]


@pytest.mark.parametrize(
    ("row", "known", "other", "nearest"),
    [
        ({"prompt": "p", "target": "t"}, "rephrases", "rephrase", "rephrases"),
        ({"prompt": "p", "target": "t"}, "subject", "subjct", "subject"),
        (
            {"prompt": "p", "target_new": "t"},
            "rephrase_prompt",
            "rephrase_promt",
            "rephrase_prompt",
        ),
        ({"src": "q", "alt": "a"}, "pred", "locc", "loc"),
        ({"claim": "c", "label": "REFUTES"}, "id", "xyz", ""),
    ],
)
def test_fields_that_are_not_read_are_named_once_a_file(
    tmp_path: Path, row: dict[str, str], known: str, other: str, nearest: str
):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([row, row | {other: []}, row | {other: 3}]))
    hint = f", nearest known: {nearest!r}" if nearest else ""
    note = f"fields of no meaning here, not read: {other!r} (2 times{hint})"
    assert [x for x in read_noted(path).notes if "not read" in x] == [note]
    path.write_text(json.dumps([row | {known: [] if known == "rephrases" else "x"}]))
    assert not [x for x in read_noted(path).notes if "not read" in x]


def test_fields_inside_of_others_are_named_too(tmp_path: Path):
    path = tmp_path / "mine.jsonl"
    locality = [{"prompt": "a", "answer": "b", "knd": "near"}]
    rephrases = [{"prompt": "r", "target": "t", "note": 1}]
    row = {"prompt": "p", "target": "t", "locality": locality, "rephrases": rephrases}
    path.write_text(json.dumps(row))
    assert read_noted(path).notes == [
        "fields of no meaning here, not read: 'rephrases.note' (1 times), "
        "'locality.knd' (1 times, nearest known: 'kind')"
    ]


def test_many_unknown_fields_with_long_names_stay_one_line(tmp_path: Path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        json.dumps({"prompt": "p", "target": "t"} | {f"{i:02}" * 999: 1 for i in range(50)})
    )
    (note,) = (x for x in read_noted(path).notes if "not read" in x)
    assert note.endswith(" and 45 more") and len(note) < 400


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"rephrases": ["r", " p "]}, "1 rephrases (of 2 records) are the edit's prompt again"),
        (
            {"rephrases": ["r"], "locality": [{"prompt": "p", "answer": "b"}]},
            "1 locality prompts (of 2 records) are the edit's prompt: it cannot stay",
        ),
        ({}, "1 of 2 records are the same as an earlier one"),
    ],
)
def test_what_is_odd_in_records_is_counted_and_kept(
    tmp_path: Path, more: dict[str, object], note: str
):
    path = tmp_path / "mine.jsonl"
    lines = [json.dumps({"prompt": "p", "target": "t"} | extra) for extra in (more, {})]
    path.write_text("\n".join(lines))
    records, notes = read_noted(path)
    assert len(records) == 2 and any(x.startswith(note) for x in notes)


def test_white_space_of_published_texts_is_an_accident_and_of_ones_own_is_not(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([{"src": "q ", "alt": " a", "rephrase": " r"}]))
    assert read_noted(path).records == [Record("q", "a", ("r",))]
    path.write_text(json.dumps([{"prompt": "q ", "target_new": " a", "rephrase_prompt": " r"}]))
    assert read_noted(path).records == [Record("q ", " a", (" r",))]


def test_questions_that_are_left_out_of_a_locality_file_are_counted(tmp_path: Path):
    path, mine = tmp_path / "nq.jsonl", tmp_path / "mine.jsonl"
    rows = [{"question": f"who is {i}", "answer": ["a", "aaa", "a"]} for i in (*range(60), 0)]
    path.write_text("\n".join(map(json.dumps, rows)))
    mine.write_text(json.dumps({"prompt": "p", "target": "t", "rephrases": ["r"], "locality":
                                [{"prompt": "a", "answer": "b"}] * 3}))  # fmt: skip
    notes = read_noted(mine, Reading(locality=path)).notes
    assert [x.removeprefix(f"{path}: ") for x in notes] == [
        "61 answers beside the shortest of their question are not read",
        "1 of 61 questions were asked before, and are left out",
        "3 locality prompts of the records give way to those of a file",
    ]


def test_every_source_is_in_the_one_list():
    """None is forgotten, and none has all fields of another, so that each is recognised."""
    modules = (
        importlib.import_module(f"{sources.__name__}.{module.name}")
        for module in pkgutil.iter_modules(sources.__path__)
    )
    ended = [x for module in modules for x in vars(module).values() if isinstance(x, Source)]
    assert len(ended) == len(SOURCES) and set(ended) == set(SOURCES)
    for one, other in permutations(SOURCES, 2):
        assert not set(one.fields) <= set(other.fields), (one.name, other.name)


def test_a_new_source_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its files are read, serve as locality, and are told to whoever has something else."""

    def read(rows: Iterable[Row], reading: Reading) -> Read:
        return Read([Record(row.value["riddle"], row.value["solution"]) for row in rows], ["odd"])

    def true(rows: Iterable[Row], reading: Reading) -> Answers:
        return Answers(
            [Locality(row.value["riddle"], row.value["solution"], "far") for row in rows], []
        )

    riddles = Source("Riddles", ("riddle", "solution"), read, true)
    monkeypatch.setattr(registry, "SOURCES", (*SOURCES, riddles))
    path = tmp_path / "riddles.jsonl"
    path.write_text('{"riddle": "what has keys?", "solution": "a piano"}')
    with pytest.warns(UserWarning, match="riddles.jsonl: odd"):
        assert read_records(path) == [Record("what has keys?", "a piano")]
    mine = tmp_path / "mine.jsonl"
    mine.write_text(GOOD)
    (record,) = read_records(mine, Reading("train", locality=path))
    assert record.locality == (Locality("what has keys?", "a piano", "far"),)
    mine.write_text('{"text": "t"}')
    with pytest.raises(RecordError, match=r"Known are: .*; Riddles \(riddle, solution\)"):
        read_records(mine)
