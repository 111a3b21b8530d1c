"""CounterFact: every row becomes a record, a bad one is named."""

import json
from pathlib import Path

import pytest

from mend_jax.data.fields import RecordError
from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.registry import read_records

COUNTERFACT = Path(__file__).parents[4] / "shared/data/counterfact"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what is said of a file


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
    lennon = Locality("John Lennon performs on the", "guitar", "near")
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


def test_a_bad_row_is_named(tmp_path: Path):
    path = tmp_path / "train.json"
    for row, message in (
        ({"target_new": {"str": "t"}}, "'target_new' must be a text, found dict"),
        ({"locality_prompt": "x"}, "the field 'locality_ground_truth' is missing"),
        ({"rephrase_prompt": 3}, "'rephrase_prompt' must be a text, found int"),
    ):
        good = {"prompt": "p", "target_new": "t"}
        path.write_text(json.dumps([good, good | row]))
        with pytest.raises(RecordError, match=f"train.json, record 2: {message}"):
            read_records(path)
