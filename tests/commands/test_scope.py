"""A trained editor gets a scope, is saved, holds many edits, and speaks."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compare import assert_equal
from tiny_run import Files, Finished, options, some_records
from typed import typed

import mend_jax as mj
from mend_jax.data.records import write_records
from mend_jax.runs.options import ExperimentError
from mend_jax.runs.run import run

pytest_plugins = ["finished_run"]

@pytest.fixture(scope="module")
def out(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scope")
    write_records(folder / "train.jsonl", some_records(100, 24))
    ended = typed(
        "scope", "--editor", finished.config.out, "--out", folder / "scoped",
        "--train", folder / "train.jsonl", "--steps", 40, "--batch", 12,
    )  # fmt: skip
    assert ended.code == 0, ended.error
    assert "22 records to learn from" in ended.out and "step     40  after " in ended.out
    assert "thresholds set on 2 edits that it has not seen: found " in ended.out
    return folder / "scoped"


def test_the_editor_is_the_same_and_the_scope_is_new(finished: Finished, out: Path):
    before, after = finished.run.saved, mj.load_editor(out)
    assert_equal(after.state.phi.editor, before.state.phi)
    assert_equal(after.state.stats, before.state.stats)
    assert after.config["scoped"]["scope"]["stages"] == [1, 2]
    assert after.config["training"]["scope"]["steps"] == 40
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(after.state.phi.scope))


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())["metrics"]


def test_edits_that_are_held_are_found(finished: Finished, out: Path, tmp_path: Path):
    """Of subjects that neither editor nor scope has seen; its prompt always finds an edit."""
    write_records(tmp_path / "records.jsonl", some_records(200, 8))
    held, spoken = tmp_path / "held", tmp_path / "spoken"
    line = ("evaluate", "--editor", out, "--records", tmp_path / "records.jsonl", "--k", 8)
    ended = typed(*line, "--out", held)
    assert ended.code == 0, ended.error
    found = metrics(held)
    assert {"found", "wrong", "fired", "fired_own"} - set(found) <= {"fired_own"}
    points = json.loads((held / "results.json").read_text())["roc"]
    (here,) = (point for point in points if point["lower"] == 0)
    for name in ("found", "wrong"):  # every record has two rephrases
        np.testing.assert_allclose(here[name], found[name]["value"])
    for at in (lambda point: point["found"] + point["wrong"], lambda point: point["fired"]):
        assert sorted(map(at, points)) == list(map(at, points)) and at(points[0]) == 0
    apart = [x for x in found.values() if 0 < x["value"] < 1]
    assert not apart or any(x["low"] < x["high"] for x in apart)  # drawn edit by edit
    told = json.loads((held / "results.json").read_text())
    assert told["making"]["edits"] == 8 and told["several edits of one subject"]["subjects"] == 0
    ended = typed(*line[:-2], "--sequential", 8, "--out", tmp_path / "in_turn")
    assert ended.code == 0, ended.error
    assert metrics(tmp_path / "in_turn") == found  # one after another is all at once
    ended = typed(*line, "--out", spoken, "--protocol", "contains")
    assert ended.code == 0, ended.error
    assert {"reliability", "generality"} <= set(metrics(spoken))


def test_others_are_held_beside(out: Path, tmp_path: Path):
    """Eight are scored while twenty are held; what they do elsewhere is told."""
    write_records(tmp_path / "records.jsonl", some_records(200, 8))
    write_records(tmp_path / "others.jsonl", [*some_records(203, 20), *some_records(100, 4)])
    line = ("evaluate", "--editor", out, "--records", tmp_path / "records.jsonl", "--k", 4)
    more = ("--distractors", tmp_path / "others.jsonl", "--elsewhere", 3, "--out", tmp_path / "new")
    ended = typed(*line, *more, "--hold", 20)
    assert ended.code == 0, ended.error
    results = json.loads((tmp_path / "new/results.json").read_text())
    counts = results["config"]
    assert counts["held beside"]["of subjects trained on"] == 1  # 16 are wanted, and 15 are new
    assert counts["left_out"]["locality prompts about subjects that are edited beside"] == 3 + 4
    parts = results["elsewhere"]
    assert parts["after the answer"]["tokens"] == 3 * 16
    assert all(np.isfinite(list(part.values())).all() for part in parts.values())
    ended = typed(*line, *more[:-1], tmp_path / "few", "--hold", 40)
    assert ended.code == 1 and "36 edits are wanted beside, and 19" in ended.error
    ended = typed(*line, "--hold", 9, "--out", tmp_path / "few")
    assert ended.code == 1 and "--hold N and --distractors FILE go together" in ended.error


def test_a_run_trains_both(tiny_files: Files, finished: Finished, tmp_path: Path):
    """Edits are trained where they are asked for; the scope is part of what is scored and saved."""
    config = options(tiny_files, tmp_path / "run", scope=True, scope_steps=20, scope_batch=8)
    said: list[str] = []
    made = run(config, said.append)
    assert made is not None and any("thresholds set on 4 edits" in text for text in said)
    again = mj.load_editor(tmp_path / "run")
    assert_equal(again.state, made.saved.state)
    assert made.results["metrics"]["reliability"] and "scoped" in again.config
    with pytest.raises(ExperimentError, match="--k, --at-once and --mesh do not go with it"):
        run(options(tiny_files, tmp_path / "two", scope=True, k=2))
    with pytest.raises(ValueError, match="only edits that are factors are scoped"):
        run(options(tiny_files, tmp_path / "ft", scope=True, editor="ft_kl"))
    lent = run(options(tiny_files, tmp_path / "lent", scope=True, scope_of=str(tmp_path / "run")))
    assert lent is not None
    assert_equal(lent.saved.state, again.state)  # the same editor, and the other's scope
    with pytest.raises(ValueError, match="whose scope is to be taken has none"):
        run(options(tiny_files, tmp_path / "no", scope=True, scope_of=str(finished.config.out)))
    with pytest.raises(ExperimentError, match="say --scope, too"):
        run(options(tiny_files, tmp_path / "no", scope_of="smollm2-135m"))


def test_editors_are_compared_under_one_scope(tiny_files: Files, out: Path, tmp_path: Path):
    """Trained for it, and scored while four of their edits are held, as `evaluate` does."""
    write_records(tmp_path / "records.jsonl", some_records(200, 8))
    line = (
        "compare", "--model", tiny_files.model, "--train", tiny_files.train, "--validation",
        tmp_path / "records.jsonl", "--sites", r"layers_1/mlp/(up|down)_proj", "--dev", 4,
        "--steps", 2, "--batch", 3, "--rank", 5, "--longest", 24, "--scope",
    )  # fmt: skip
    ended = typed(*line, "--out", tmp_path / "no")
    assert ended.code == 1 and "all its editors one scope: --scope-of DIR" in ended.error
    more = ("--scope-of", out, "--editors", "mend,ft,enn,ft_kl,none", "--k", 4)
    ended = typed(*line, *more, "--ft.learning-rate", 1e-2, "--out", tmp_path / "all")
    assert ended.code == 0, ended.error
    rows = json.loads((tmp_path / "all/compare.json").read_text())
    for row in rows[:2]:
        assert row["config"]["k"] == 4 and row["n"] == 8 and row["edit_seconds"] > 0
        assert {"found", "wrong", "fired"} <= set(row["metrics"])
    wanted = ("a base of its own", "only edits that are factors are scoped", "changes no weights")
    for row, why in zip(rows[2:], wanted, strict=True):
        assert why in row["error"]
    assert rows[1]["metrics"]["reliability"]["value"] == 1.0  # fine-tuned where they act
    records = ("--records", tmp_path / "records.jsonl", "--longest", 24)
    ended = typed("evaluate", "--editor", tmp_path / "all/ft", *records, "--k", 4,
                  "--out", tmp_path / "again")  # fmt: skip
    assert ended.code == 0, ended.error
    assert metrics(tmp_path / "again")["reliability"]["value"] == 1.0


def test_the_command_edit_speaks_with_it(out: Path):
    ended = typed(
        "edit", "--editor", out, "--prompt", "Person 300 lives in", "--target", "Oslo",
        "--ask", "Person 7 likes to eat a", "--show-scope",
    )  # fmt: skip
    assert ended.code == 0, ended.error
    told = [line.split() for line in ended.out.splitlines() if line.endswith("edit 1 acts")]
    assert all(float(line[-5]) > 0 and float(line[-4]) > 0 for line in told) and told
    assert "Person 300 lives in -> Oslo" in ended.out
    asked = ended.out.split("Person 7 likes to eat a")[1]
    before, after = (line.split(":", 1)[1].strip() for line in asked.strip().splitlines()[:2])
    assert before == after


@pytest.mark.parametrize(
    "option", [("--k", 2, "--at-once", "summed"), ("--alone",)]
)
def test_options_that_a_scope_does_not_obey(out: Path, tmp_path: Path, option: tuple[Any, ...]):
    write_records(tmp_path / "records.jsonl", some_records(200, 8))
    records = ("--records", tmp_path / "records.jsonl")
    ended = typed("evaluate", "--editor", out, *records, "--out", tmp_path / "new", *option)
    assert ended.code == 1 and "not for an editor with a scope" in ended.error
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "is not empty: give another --out"),
        ({"--out": "new", "--editor": "scoped"}, "the editor has a scope already"),
    ],
)
def test_what_is_refused(
    finished: Finished, out: Path, tmp_path: Path, changes: dict[str, str], wanted: str
):
    places = {"scoped": out, "new": tmp_path / "new"}
    options = {"--editor": finished.config.out, "--out": out}
    options |= {name: places[value] for name, value in changes.items()}
    ended = typed("scope", *(x for option in options.items() for x in option))
    assert ended.code == 1 and wanted in ended.error
