"""FEVER in both forms: whose verdict is flipped, templates, and what is left out."""

import json
from collections import Counter
from pathlib import Path

import pytest

from mend_jax.data.fields import RecordError
from mend_jax.data.sources.base import Reading
from mend_jax.data.sources.fever import TEMPLATES
from mend_jax.data.sources.registry import read_records

FEVER = Path(__file__).parents[4] / "shared/data/fever"
OTHER = {"SUPPORTS": "REFUTES", "REFUTES": "SUPPORTS"}
LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
ROWS = [
    {"id": i, "claim": f"Person {i} is from Øresund {{sic}}.", "label": LABELS[i % 3]}
    for i in range(60)
]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def written(tmp_path: Path, rows: list[dict[str, object]]) -> Path:
    path = tmp_path / "fever.json"
    path.write_text(json.dumps(rows))
    return path


def test_every_verdict_is_flipped_and_others_stay(tmp_path: Path):
    path = written(tmp_path, ROWS)
    label = {row["claim"]: row["label"] for row in ROWS if row["label"] != "NOT ENOUGH INFO"}
    with pytest.warns(UserWarning) as seen:
        records = read_records(path, Reading(localities=5))
    assert [record.prompt for record in records] == list(label)
    for record in records:
        assert record.target == OTHER[label[record.prompt]]
        prompts = {pair.prompt for pair in record.locality}
        assert len(prompts) == 5 and record.prompt not in prompts
        assert all(pair.answer == label[pair.prompt] for pair in record.locality)
    notes = "\n".join(str(warning.message) for warning in seen)
    assert "fever.json: 20 of 60 rows are labelled NOT ENOUGH INFO (the first: record 3)" in notes
    assert "the rephrases of all 40 records are made of templates: 'It is true" in notes
    assert "the true verdict stands for the model's own prediction" in notes


def test_half_keep_the_prediction(tmp_path: Path):
    """And nothing else is drawn differently."""
    rows = [row for row in ROWS * 10 if row["label"] != "NOT ENOUGH INFO"]
    path = written(tmp_path, [row | {"claim": f"{i} {row['claim']}"} for i, row in enumerate(rows)])
    every, half = (read_records(path, Reading(flip=flip)) for flip in ("all", "half"))
    kept = sum(a.target != b.target for a, b in zip(every, half, strict=True))
    assert 0.4 < kept / len(rows) < 0.6
    assert [a._replace(target="") for a in every] == [b._replace(target="") for b in half]


def test_templates_of_the_splits_differ_and_keep_the_claim(tmp_path: Path):
    path = written(tmp_path, ROWS)
    used = {}
    for split in ("train", "validation"):
        records = read_records(path, Reading(split))
        assert all(len(set(record.rephrases)) == 2 for record in records)
        used[split] = {r.replace(x.prompt, "{}") for x in records for r in x.rephrases}
        assert used[split] == set(TEMPLATES[split])
    assert not used["train"] & used["validation"]


def line(number: int, gold: str, prediction: str, **fields: object) -> dict[str, object]:
    claim = f"Claim {number} holds."
    return {
        "input": claim,
        "output": [{"answer": gold}],
        "prediction": prediction,
        "alternatives": [OTHER.get(prediction, "SUPPORTS")],
        "filtered_rephrases": [f"It holds what claim {number} says.", claim],
        "logit": 0.5,
    } | fields


def test_lines_flip_the_prediction_and_keep_the_truth(tmp_path: Path):
    path = tmp_path / "fever-dev-kilt.jsonl"
    lines = [line(i, LABELS[i % 2], LABELS[i // 2 % 2]) for i in range(80)]
    lines[3]["filtered_rephrases"] = []
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    used = [row for i, row in enumerate(lines) if i != 3]
    with pytest.warns(UserWarning, match=r"1 of 80 rows have no .* \(the first: line 4\)"):
        every = read_records(path)
    half = read_records(path, Reading(flip="half"))
    gold = {row["input"]: row["output"][0]["answer"] for row in used}
    for record, row in zip(every, used, strict=True):
        assert record.prompt == row["input"] and record.target == OTHER[row["prediction"]]
        assert record.rephrases == (row["filtered_rephrases"][0],)
        assert all(pair.answer == gold[pair.prompt] for pair in record.locality)
    kept = [r.target == row["prediction"] for r, row in zip(half, used, strict=True)]
    assert Counter(kept)[True] in range(25, 55)
    assert [r.locality for r in half] == [r.locality for r in every]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"claim": "c", "label": "TRUE"}, "'label' must be one of REFUTES, SUPPORTS, NOT ENOUGH"),
        ({"claim": "", "label": "REFUTES"}, "'claim' is empty"),
        ({"claim": "c"}, "the field 'label' is missing"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, object], message: str):
    with pytest.raises(RecordError, match=f"fever.json, record 4: {message}"):
        read_records(written(tmp_path, [*ROWS[:3], row]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (line(1, "NOT ENOUGH INFO", "REFUTES"), "'answer' must be one of REFUTES, SUPPORTS, is"),
        (line(1, "REFUTES", ""), "'prediction' must be one of REFUTES, SUPPORTS, is ''"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: dict[str, object], message: str):
    path = tmp_path / "fever.jsonl"
    path.write_text(f"{json.dumps(line(0, 'REFUTES', 'SUPPORTS'))}\n{json.dumps(row)}\n")
    with pytest.raises(RecordError, match=f"fever.jsonl, line 2: {message}"):
        read_records(path)


@pytest.mark.skipif(not FEVER.is_dir(), reason="the FEVER files are not here")
@pytest.mark.parametrize("name", ["train", "validation"])
def test_all_of_fever(name: str):
    rows = json.loads((FEVER / f"{name}.json").read_text(encoding="utf-8"))
    records = read_records(FEVER / f"{name}.json", Reading("train"))
    labels = Counter(row["label"] for row in rows)
    targets = Counter(record.target for record in records)
    assert targets == {OTHER[label]: labels[label] for label in OTHER}
    assert all(len(r.locality) == 4 and len(r.rephrases) == 2 for r in records)
