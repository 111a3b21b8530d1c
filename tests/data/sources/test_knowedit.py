"""KnowEdit: rephrases, and locality in groups."""

import json
from pathlib import Path
from typing import Any

import pytest

from mend_jax.data.fields import RecordError
from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.registry import read_records

SPAIN = {"prompt": "The capital of Spain is", "ground_truth": ["Madrid"]}
ROW: dict[str, Any] = {
    "subject": "France",
    "prompt": "The capital of France is",
    "target_new": "Rome",
    "ground_truth": ["Paris"],
    "rephrase_prompt": "France's capital city is",
    "cond": "Paris >> Rome || The capital of France is",
    "locality": {"Relation_Specificity": [SPAIN]},
    "portability": {"Reasoning": [SPAIN], "Subject_Aliasing": [SPAIN, SPAIN]},
}
MADRID = Locality("The capital of Spain is", "Madrid", "near")
WANTED = Record(ROW["prompt"], "Rome", ("France's capital city is",), (MADRID,), "France")


def read(tmp_path: Path, *rows: dict[str, Any]) -> tuple[list[Record], list[str]]:
    path = tmp_path / "knowedit.json"
    path.write_text(json.dumps(rows))
    with pytest.warns(UserWarning) as seen:
        records = read_records(path)
    return records, [str(warning.message).removeprefix(f"{path}: ") for warning in seen]


def test_locality_and_rephrases_are_read_and_portability_is_counted(tmp_path: Path):
    records, said = read(tmp_path, ROW)
    assert records == [WANTED]
    assert said == ["3 portability prompts have no place in a record, and are not read"]


@pytest.mark.parametrize("truth", ["Madrid", ["Madrid"], [["Madrid"]], ["", [" ", "Madrid"]]])
@pytest.mark.parametrize("again", ["France's capital city is", ["France's capital city is"]])
def test_its_files_write_one_thing_in_several_ways(tmp_path: Path, truth: Any, again: Any):
    row = {k: v for k, v in ROW.items() if k != "rephrase_prompt"} | {
        "rephrase": again,
        "locality": {"Forgetfulness": [SPAIN | {"ground_truth": truth}]},
    }
    assert read(tmp_path, row)[0] == [WANTED]


def test_flat_and_grouped_rows_stand_in_one_file(tmp_path: Path):
    """Also where the first row has no groups, by which the file could be told."""
    flat = {"prompt": "p", "target_new": "t"}
    assert read(tmp_path, flat, ROW)[0] == [Record("p", "t"), WANTED]


def test_answers_and_their_other_names(tmp_path: Path):
    items = [
        SPAIN | {"ground_truth": [["Madrid", "Villa y Corte"]]},
        SPAIN | {"ground_truth": [[""]]},
        SPAIN | {"ground_truth": []},
    ]
    records, said = read(tmp_path, ROW | {"locality": {"Relation_Specificity": items}})
    assert records == [WANTED]
    assert said[1:] == [
        "2 locality prompts have no answer, and are left out",
        "1 locality prompts have other right answers too, which are not read",
    ]


def test_wikibio(tmp_path: Path):
    row = {
        "text": "This is about John Russell. He was",
        "labels": "a British peer.",
        "concept": "John Russell",
        "locality": {"Relation_Specificity": [SPAIN]},
    }
    records, said = read(tmp_path, row)
    assert records == [Record(row["text"], row["labels"], (), (MADRID,), "John Russell")]
    assert said == ["1 of 1 records have no rephrases"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"locality": []}, "'locality' must be an object of lists of objects"),
        ({"locality": {"a": "x"}}, "'a' is none"),
        ({"locality": {"a": ["x"]}}, "'a' is none"),
        ({"portability": 3}, "'portability' must be an object of lists"),
        ({"locality": {"a": [{"ground_truth": "x"}]}}, "locality.a[0]: the field 'prompt' is miss"),
        ({"locality": {"a": [SPAIN | {"ground_truth": 3}]}}, "locality.a[0]: expected a text or"),
        ({"locality": {"a": [SPAIN | {"ground_truth": [[3]]}]}}, "locality.a[0]: expected texts"),
        ({"rephrase": {}}, "rephrase: expected a text or a list of texts"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, more: dict[str, Any], message: str):
    path = tmp_path / "knowedit.json"
    path.write_text(json.dumps([ROW, ROW | more]))
    with pytest.raises(RecordError) as error:
        read_records(path)
    assert str(error.value).startswith(f"{path}, record 2: ") and message in str(error.value)
