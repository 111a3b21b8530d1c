"""CounterFact in the file of its authors."""

import json
from pathlib import Path
from typing import Any

import pytest

from mend_jax.data.fields import RecordError
from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.registry import read_records

ROW: dict[str, Any] = {
    "case_id": 0,
    "pararel_idx": 1,
    "requested_rewrite": {
        "prompt": "The capital of {} is",
        "relation_id": "P36",
        "target_new": {"str": "Rome", "id": "Q220"},
        "target_true": {"str": "Paris", "id": "Q90"},
        "subject": "France",
    },
    "paraphrase_prompts": ["France's capital city is", "Who? {}:"],
    "neighborhood_prompts": ["The capital of the Louvre's country is", "The city of light is"],
    "attribute_prompts": ["The capital of Italy is"],
    "generation_prompts": ["France is", "{} is"],
}
WANTED = Record(
    "The capital of France is",
    "Rome",
    ("France's capital city is", "Who? France:"),
    (
        Locality("The capital of the Louvre's country is", "Paris", "near"),
        Locality("The city of light is", "Paris", "near"),
    ),
    "France",
)


def test_rows_become_records_and_what_has_no_place_is_counted(tmp_path: Path):
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps([ROW, ROW | {"note": "n"}], indent=1))
    with pytest.warns(UserWarning) as seen:
        assert read_records(path) == [WANTED, WANTED]
    said = [str(warning.message).removeprefix(f"{path}: ") for warning in seen]
    assert said[0] == "2 attribute prompts have no place in a record, and are not read"
    assert said[1] == "4 generation prompts have no place in a record, and are not read"
    assert said[2].startswith("fields of no meaning here, not read: 'note' (1 times")
    assert said[3] == "1 of 2 records are the same as an earlier one"
    assert len(said) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"requested_rewrite": "x"}, "'requested_rewrite' must be an object, found str"),
        ({"requested_rewrite": {"prompt": "p"}}, "'target_new' must be an object, found NoneType"),
        (
            {"requested_rewrite": ROW["requested_rewrite"] | {"target_new": {"str": 3}}},
            "target_new: 'str' must be a text, found int",
        ),
        (
            {"requested_rewrite": ROW["requested_rewrite"] | {"target_true": None}},
            "'target_true' must be an object",
        ),
        (
            {"requested_rewrite": ROW["requested_rewrite"] | {"subject": ""}},
            "requested_rewrite: 'subject' is empty",
        ),
        ({"paraphrase_prompts": "x"}, "'paraphrase_prompts' must be a list, found str"),
        ({"neighborhood_prompts": [{}]}, "neighborhood_prompts[0] must be a text"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, more: dict[str, Any], message: str):
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps([ROW, ROW | more]))
    with pytest.raises(RecordError) as error:
        read_records(path)
    assert str(error.value).startswith(f"{path}, record 2: ") and message in str(error.value)
