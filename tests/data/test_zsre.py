"""zsRE in both forms: targets, rephrases, locality, and what is left out."""

import json
from pathlib import Path

import pytest

from mend_jax.data.formats import read_records
from mend_jax.data.records import Locality, Record, RecordError

ZSRE = Path(__file__).parents[3] / "shared/data/zsre"

pytestmark = pytest.mark.filterwarnings("ignore:.*records have no ")


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
