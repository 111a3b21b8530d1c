"""The options of a run reach the reading of its files, and its own records."""

import json
from pathlib import Path

import pytest
from tiny_run import Files

from mend_jax.data.sources.base import Read, Reading
from mend_jax.data.sources.registry import read_records
from mend_jax.models.registry import load
from mend_jax.option_types import OptionError
from mend_jax.runs.options import ExperimentError, PaperConfig, TrainConfig, check_config
from mend_jax.runs.splits import check_data, deal_facts, read_files, read_more

pytest_plugins = ["finished_run"]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "nq.jsonl"
    rows = [{"question": f"who is n{i}", "answer": [f"n{i}"]} for i in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.filterwarnings("ignore:.*fever.json")
def test_options_reach_the_files(tmp_path: Path, questions: Path):
    path = tmp_path / "fever.json"
    path.write_text(json.dumps([{"claim": f"c{i}", "label": "REFUTES"} for i in range(40)]))
    files = {"out": tmp_path / "out", "train": path, "validation": path, "seed": 3}
    for config, reading in (
        (TrainConfig(**files), Reading(seed=3)),
        (PaperConfig(**files), Reading(flip="half", seed=3)),
        (
            TrainConfig(**files, locality=questions, localities=7, questions="exact"),
            Reading(locality=questions, localities=7, questions="exact", seed=3),
        ),
    ):
        read = read_files(config)
        assert read is not None
        assert read[0] == read_records(path, reading)
        assert read[1] == read_records(path, reading._replace(split="validation"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # what is said of a file
def test_a_locality_file_serves_the_facts_too(tiny_files: Files, questions: Path):
    base = load(str(tiny_files.model))
    config = TrainConfig(out=Path("out"), locality=questions, localities=2)
    train, validation, *_ = deal_facts(config, base, Read([], []))
    trained = {pair for record in train for pair in record.locality}
    scored = {pair for record in validation for pair in record.locality}
    assert not trained & scored and len(trained | scored) == 100
    assert all(len(record.locality) == 2 for record in (*train, *validation))
    own, *_ = deal_facts(TrainConfig(out=Path("out")), base, Read([], []))
    assert [r._replace(locality=()) for r in own] == [r._replace(locality=()) for r in train]


def test_own_records_are_added_to_the_facts(tiny_files: Files):
    base = load(str(tiny_files.model))
    plain = TrainConfig(out=Path("out"))
    config = TrainConfig(out=Path("out"), records=tiny_files.train)
    more = read_more(config)
    assert more.records == read_records(tiny_files.train) and not read_more(plain).records
    facts, both = (deal_facts(c, base, read_more(c)) for c in (plain, config))
    assert both.train == [*facts.train, *more.records] and both.validation == facts.validation
    assert both.name == f"facts and {tiny_files.train}"
    with pytest.raises(ExperimentError, match="--records are added .*: leave out --train"):
        check_data(TrainConfig(out=Path("o"), records=tiny_files.train, train=tiny_files.train,
                               validation=tiny_files.train))  # fmt: skip


def test_a_negative_number_of_localities():
    with pytest.raises(OptionError, match="--localities -1: from 0 to"):
        check_config(TrainConfig(out=Path("out"), localities=-1))
