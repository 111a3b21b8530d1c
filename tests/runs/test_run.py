"""A whole run on a tiny Hugging Face folder: what it writes, drops, counts and refuses."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import Files, Finished, options, some_records

from mend_jax.data.bucketing import LENGTHS
from mend_jax.data.fields import RecordError
from mend_jax.data.records import Record, write_records
from mend_jax.evaluation.metrics import METRICS
from mend_jax.option_types import OptionError
from mend_jax.runs.options import ExperimentError, TrainConfig, check_config
from mend_jax.runs.run import run
from mend_jax.runs.splits import Given, prepare
from mend_jax.weights import WeightsError

pytest_plugins = ["finished_run"]

TOO_LONG = {"records": 0, "rephrases": 0, "locality": 0}


def test_results_json(finished: Finished):
    results = json.loads((finished.config.out / "results.json").read_text())
    assert list(results) == [
        "editor",
        "model",
        "dataset",
        "n",
        "protocol",
        "metrics",
        "seconds",
        "peak_bytes",
        "config",
    ]
    assert results["editor"] == "mend" and results["model"] == finished.config.model
    assert results["protocol"] == "teacher-forced sequence"
    assert results["n"] == 8 and results["seconds"] > 0 and results["peak_bytes"] > 1e6
    of_others = ("failed", "found", "wrong", "fired", "fired_own", "locality_agreement_own")
    assert list(results["metrics"]) == [name for name in METRICS if name not in of_others]
    for name, metric in results["metrics"].items():
        assert list(metric) == ["value", "low", "high"]
        assert metric["low"] <= metric["value"] + 1e-9 <= metric["high"] + 2e-9, name
    config = results["config"]
    for field in dataclasses.fields(finished.config):
        value = getattr(finished.config, field.name)
        assert config[field.name] == (str(value) if isinstance(value, Path) else value)
    assert config["best_step"] in (3, 6)
    assert (config["skipped_steps"], config["stopped_early"]) == (0, False)
    assert results == json.loads(json.dumps(finished.run.results))


def test_what_else_is_written(finished: Finished):
    out = finished.config.out
    for name in ("training.png", "scores.png"):
        assert (out / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 6]
    assert {p.name for p in (out / "checkpoints").iterdir()} >= {"3", "6"}
    assert {"editor.safetensors", "config.json", "run.json"} <= {p.name for p in out.iterdir()}
    assert not (out / "trunk").exists()


def test_known_subjects_are_dropped_counted_and_said(finished: Finished):
    left_out = finished.run.results["config"]["left_out"]
    assert left_out["validation records of known subjects"] == 2
    assert left_out["too long, training"] == left_out["too long, validation"] == TOO_LONG
    assert [r.subject for r in finished.run.validation] == [f"Person {i}" for i in range(24, 32)]
    said = finished.said[0]
    assert said.startswith("20 training, 4 development and 8 validation records; left out: ")
    assert "'validation records of known subjects': 2" in said


def test_development_subjects_are_held_out_and_counted(finished: Finished):
    """Two records a subject: the other one of a development subject is in neither part."""
    train = [r._replace(prompt=f"{r.prompt}{x}") for r in some_records(0, 20) for x in ("", " now")]
    config = dataclasses.replace(finished.config, dev=6)
    data = prepare(config, finished.run.saved.base, Given(train, some_records(30, 2), "some", {}))
    dev = {r.record.subject for r in data.dev}
    assert len(data.dev) == 6
    assert not dev & {r.record.subject for r in data.train}
    shared = data.left_out["training records of development subjects"]
    assert len(data.train) + len(data.dev) + shared == 40 and shared == 2 * len(dev) - 6


@pytest.mark.parametrize("cache", ["disk", "off"])
def test_the_trunk_cache_changes_no_result(finished: Finished, tmp_path: Path, cache: Any):
    config = dataclasses.replace(finished.config, out=tmp_path / "out", trunk_cache=cache)
    metrics = run(config, lambda message: None).results["metrics"]
    assert (tmp_path / "out" / "trunk" / "trunk.npy").exists() == (cache == "disk")
    assert metrics["locality_kl"]["value"] > 0.01  # the edits do something
    assert metrics.keys() == finished.run.results["metrics"].keys()
    for name, metric in finished.run.results["metrics"].items():
        for key, value in metric.items():
            off = 1e-2 if name.startswith("perplexity") else 1e-4  # those are in the hundreds
            np.testing.assert_allclose(metrics[name][key], value, atol=off, err_msg=name)


def test_a_run_that_is_there_is_neither_overwritten_nor_mistaken(finished: Finished):
    with pytest.raises(ExperimentError, match="is not empty: give another --out, or --resume"):
        run(finished.config)
    other = dataclasses.replace(finished.config, resume=True, rank=7, learning_rate=1e-2)
    with pytest.raises(ExperimentError, match="other options: --learning-rate was 0.001"):
        run(other)


def test_a_file_as_a_directory_is_refused(finished: Finished, tmp_path: Path):
    (tmp_path / "a file").touch()
    with pytest.raises(OptionError, match="--out .*a file: this is a file; a folder is wanted"):
        run(dataclasses.replace(finished.config, out=tmp_path / "a file"))


LEFT = {
    "killed": ("run.json", "metrics.jsonl.draft", "checkpoints/3.orbax-checkpoint-tmp/x"),
    "unscored": ("run.json", "checkpoints", "editor.safetensors"),
    "unfigured": ("run.json", "checkpoints", "editor.safetensors", "config.json", "scores.png"),
}
"""What a run has left that was stopped, or whose disk was full."""


@pytest.mark.parametrize("left", LEFT)
def test_a_run_that_was_stopped_anywhere_comes_to_the_same_end(
    finished: Finished, tmp_path: Path, left: str
):
    before, out = finished.config.out, tmp_path / "out"
    shutil.copytree(before, out, ignore=lambda folder, names: set())
    for path in out.iterdir():
        if path.name not in LEFT[left]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in LEFT[left]:
        if not (out / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text('{"st')
    again = run(dataclasses.replace(finished.config, out=out, resume=True), lambda message: None)
    for name in ("editor.safetensors", "scores.png", "training.png"):
        assert (out / name).read_bytes() == (before / name).read_bytes(), name
    assert again.results["metrics"] == finished.run.results["metrics"]
    assert {p.name for p in out.iterdir()} == {p.name for p in before.iterdir()}


def test_a_finished_run_is_left_as_it_is(finished: Finished):
    files = {path: path.stat().st_mtime_ns for path in finished.config.out.rglob("*")}
    said: list[str] = []
    assert run(dataclasses.replace(finished.config, resume=True), said.append) is None
    assert said == [f"{finished.config.out} is finished: results.json is there, and nothing is "
                    "left to do"]  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in finished.config.out.rglob("*")} == files


def test_training_records_need_validation_records(tiny_files: Files, tmp_path: Path):
    with pytest.raises(ExperimentError, match="--train FILE needs --validation FILE"):
        run(options(tiny_files, tmp_path / "out", validation=None))


def test_nothing_short_enough(tiny_files: Files, tmp_path: Path):
    with pytest.raises(ExperimentError, match="no training records are left") as error:
        run(options(tiny_files, tmp_path / "out", longest=2), lambda message: None)
    assert "'records': 24" in str(error.value) and "--longest" in str(error.value)


def test_only_known_subjects(tiny_files: Files, tmp_path: Path):
    files = tiny_files._replace(validation=tiny_files.train)
    with pytest.raises(ExperimentError, match="no validation records are left.*subjects': 24"):
        run(options(files, tmp_path / "out"), lambda message: None)


def test_everything_held_out(tiny_files: Files, tmp_path: Path):
    with pytest.raises(ExperimentError, match="24 for development.*smaller --dev"):
        run(options(tiny_files, tmp_path / "out", dev=24), lambda message: None)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("steps", 0, "--steps 0: from 1 to"),
        ("batch", 0, "--batch 0: from 1 to"),
        ("log_every", 0, "--log-every 0: from 1 to"),
        ("dev", -1, "--dev -1: from 0 to"),
        ("longest", LENGTHS[-1] + 1, "--longest 129: from 1 to 128 is allowed"),
    ],
)
def test_options_out_of_range(
    tiny_files: Files, tmp_path: Path, option: str, value: int, message: str
):
    with pytest.raises(OptionError, match=message):
        run(options(tiny_files, tmp_path / "out", **{option: value}))


def test_the_paper_s_chain_has_no_words_to_tell_apart(tmp_path: Path):
    check_config(TrainConfig(out=tmp_path, words=True))
    with pytest.raises(ExperimentError, match="--words needs a --ridge below 1"):
        check_config(TrainConfig(out=tmp_path, words=True, ridge=1.0))


def test_a_start_that_fails_leaves_the_directory_free(tiny_files: Files, tmp_path: Path):
    """A mistyped file or model name can be mended and the same command given again."""
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{")
    out = tmp_path / "out"
    for changes, error in (
        ({"train": broken}, RecordError),
        ({"train": tmp_path / "absent.jsonl"}, OptionError),
        ({"model": str(tmp_path)}, WeightsError),
        ({"longest": 2}, ExperimentError),
    ):
        with pytest.raises(error):
            run(options(tiny_files, out, **changes), lambda message: None)
        assert not out.exists() or not any(out.iterdir())


def test_reliability_alone(tiny_files: Files, tmp_path: Path):
    """Records with neither rephrases nor locality: what can be had is measured."""
    bare = [Record(r.prompt, r.target) for r in some_records(0, 12)]
    write_records(tmp_path / "train.jsonl", bare[:8])
    write_records(tmp_path / "validation.jsonl", bare[8:])
    files = Files(tiny_files.model, tmp_path / "train.jsonl", tmp_path / "validation.jsonl")
    done = run(options(files, tmp_path / "out", dev=2, steps=2), lambda message: None)
    assert list(done.results["metrics"]) == ["reliability", "edit_success", "edit_success_before"]
    assert done.results["n"] == 4


@pytest.mark.parametrize("name, sites", [("grace", ["layers_0/mlp/down_proj"]), ("in_context", [])])
def test_a_method_that_edits_elsewhere_than_the_run(
    tiny_files: Files, tmp_path: Path, name: str, sites: list[str]
):
    finished = run(options(tiny_files, tmp_path / "out", editor=name), lambda message: None)
    assert finished is not None
    metrics = finished.results["metrics"]
    assert json.loads((tmp_path / "out/config.json").read_text())["sites"] == sites
    if name == "grace":
        assert metrics["edit_success"]["value"] > metrics["edit_success_before"]["value"]
    else:  # a base of random weights heeds the text, but does not understand it
        assert metrics["locality_kl"]["value"] > 0.1
