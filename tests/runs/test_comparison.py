"""The comparison: one row an editor, the same held-out edits, and no row takes another down."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Files, options, some_records

import mend_jax as mj
from mend_jax.commands.compare import Compare, Own, run
from mend_jax.data.records import write_records
from mend_jax.editors import finetune, finetune_together
from mend_jax.option_types import OptionError
from mend_jax.runs.methods import ablations, contenders, many_at_once
from mend_jax.runs.options import ExperimentError

pytest_plugins = ["finished_run"]

ALL = "mend,ft,ft_kl,ft_breadth,enn,ke,cache,grace,in_context,none"


def settings(files: Files, out: Path, **changes: Any) -> Compare:
    made = options(files, out, steps=2, calibrate=2, ridge=1.0, **changes.pop("run", {}))
    known = {field.name: getattr(made, field.name) for field in fields(made)}
    return Compare(**(known | changes))


def rows_of(config: Compare, names: str) -> list[dict]:
    return run(config, contenders(config, names, config.own))


@pytest.fixture(scope="module")
def compared(
    tiny_files: Files, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Compare, list[dict]]:
    out = tmp_path_factory.mktemp("compare") / "out"
    config = settings(
        tiny_files, out, editors=ALL,
        own=Own(
            ft=finetune.FT.options(learning_rate=1e-2),
            ft_kl=finetune.FT_KL.options(learning_rate=1e-2),
            ft_breadth=finetune_together.METHOD.options(learning_rate=1e-2, epochs=200),
        ),
    )  # fmt: skip
    return config, rows_of(config, config.editors)


def test_every_editor_has_a_row_on_the_same_edits(compared: tuple[Compare, list[dict]]):
    config, rows = compared
    assert [row["editor"] for row in rows] == ALL.split(",")
    assert not [row["error"] for row in rows if "error" in row]
    assert {row["n"] for row in rows} == {8}
    assert len({json.dumps(row["metrics"]["edit_success_before"]) for row in rows}) == 1
    by_name = {row["editor"]: row for row in rows}
    assert by_name["none"]["metrics"]["locality_agreement"]["value"] == 1.0
    assert by_name["none"]["metrics"]["drawdown"]["value"] == 0.0
    assert by_name["ft"]["metrics"]["reliability"]["value"] == 1.0
    assert by_name["ft_breadth"]["metrics"]["reliability"]["value"] == 1.0
    assert by_name["ft_breadth"]["config"]["k"] == 8
    assert by_name["in_context"]["metrics"]["locality_agreement"]["value"] < 1.0  # all are told
    trained = {name for name, row in by_name.items() if row["steps"]}
    assert trained == {"mend", "enn", "ke"}
    assert all((by_name[name]["parameters"] > 0) == (name in trained) for name in by_name)
    assert all(row["memory_bytes"] > 0 for row in rows if row["editor"] != "none")
    written = json.loads((config.out / "compare.json").read_text())
    assert [row["metrics"] for row in written] == [row["metrics"] for row in rows]
    assert (config.out / "compare.png").stat().st_size > 5000
    assert len((config.out / "compare.md").read_text().splitlines()) == 2 + len(rows)


@pytest.mark.parametrize("name", ["enn", "ft_kl", "ke", "grace", "in_context"])
def test_each_editor_can_be_loaded_and_used(compared: tuple[Compare, list[dict]], name: str):
    """Over the whole base, from the disk: the scores that it had over the tail."""
    from mend_jax.commands.evaluate import Evaluate, evaluate

    config, rows = compared
    assert config.validation is not None
    saved = mj.load_editor(config.out / name)
    assert saved.config["editor"] == name
    out, records = config.out / f"{name}_scores", config.out / f"{name}.jsonl"
    write_records(records, some_records(24, 8))  # those of the file that are not known
    evaluate(Evaluate(editor=str(config.out / name), records=records, out=out, longest=24))
    found = json.loads((out / "results.json").read_text())
    wanted = next(row for row in rows if row["editor"] == name)["metrics"]
    assert found["editor"] == name and set(found["metrics"]) == set(wanted)
    if name != "ft_kl":  # RMSprop makes rounding large
        for metric, value in found["metrics"].items():
            assert value == pytest.approx(wanted[metric], rel=1e-3, abs=1e-3), metric


@pytest.mark.parametrize("name", ["grace", "in_context"])
def test_edits_that_change_no_weights_are_made_and_heard(
    compared: tuple[Compare, list[dict]], name: str, capsys: pytest.CaptureFixture[str]
):
    """By the commands: one edit, and several at once in the model's own words."""
    from mend_jax.commands.edit import Edit, edit
    from mend_jax.commands.evaluate import Evaluate, evaluate

    config, _ = compared
    edit(Edit(editor=str(config.out / name), prompt="Person 24 lives in", target="Rome", tokens=2))
    said = capsys.readouterr().out.split("Person 24 lives in")[-1]
    before, after = (line.split(":", 1)[1].strip() for line in said.splitlines()[1:3])
    assert before != after and (name != "grace" or after.startswith("Rome")), said
    out, records = config.out / f"{name}_heard", config.out / f"{name}_some.jsonl"
    write_records(records, some_records(24, 4))
    evaluate(
        Evaluate(
            editor=str(config.out / name), records=records, out=out, longest=24, k=2,
            protocol="contains",
        )
    )  # fmt: skip
    found = json.loads((out / "results.json").read_text())
    assert found["n"] == 4 and len(found["texts"]) == 4
    assert found["metrics"]["locality_agreement"]["value"] <= 1.0


def test_a_streamed_comparison_has_the_rows_of_one_over_the_whole_base(
    compared: tuple[Compare, list[dict]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    """Who needs all of it says so in its row."""
    monkeypatch.setenv("MEND_JAX_CACHE", str(tmp_path / "cache"))
    config, rows = compared
    config = replace(config, out=tmp_path / "out", stream=True)
    mend, in_context = rows_of(config, "mend,in_context")
    assert "tokens through the layers below in" in capsys.readouterr().out
    for name, value in rows[0]["metrics"].items():
        assert mend["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    assert "--stream" in in_context["error"]


def test_one_editor_that_cannot_be_is_a_row_with_its_error(tiny_files: Files, tmp_path: Path):
    config = settings(
        tiny_files, tmp_path / "out", editors="enn,none", run={"dtype": "int8"}
    )
    first, second = rows_of(config, config.editors)
    assert "ENN trains the base" in first["error"] and "int8" in first["error"]
    assert second["metrics"]["locality_agreement"]["value"] == 1.0
    assert "ENN trains the base" in (config.out / "compare.md").read_text()


def test_a_comparison_that_was_stopped_goes_on(tiny_files: Files, tmp_path: Path):
    """Rows that are there stay; one with an error, one that is missing, and damaged ones do not."""
    config = settings(tiny_files, tmp_path / "out", editors="none,cache", resume=True)
    file = config.out / "compare.json"
    first = rows_of(config, config.editors)
    assert rows_of(config, config.editors) is None  # finished
    broken = [{"editor": "none", "error": "no room"}, first[1]]
    for left, kept in (([first[0], {}], [0]), (broken, [1]), ({}, [])):
        (config.out / "compare.png").unlink()
        (config.out / "cache" / "of the stopped one").touch()
        file.write_text(json.dumps(left))
        again = rows_of(config, config.editors)
        assert [row["metrics"] for row in again] == [row["metrics"] for row in first]
        assert [i for i in (0, 1) if again[i] == first[i]] == kept  # its seconds, too
        assert (config.out / "cache" / "of the stopped one").exists() == (1 in kept)
        assert json.loads(file.read_text()) == json.loads(json.dumps(again))
        assert (config.out / "compare.png").stat().st_size > 5000
    with pytest.raises(ExperimentError, match="--resume to leave that run"):
        rows_of(replace(config, resume=False), config.editors)


def test_edits_that_contradict_each_other_are_not_made_at_once(
    tiny_files: Files, tmp_path: Path
):
    held_out = some_records(24, 4)
    both = tmp_path / "both.jsonl"
    write_records(both, [*held_out, held_out[0]._replace(target="Nowhere")])
    files = tiny_files._replace(validation=both)
    config = settings(files, tmp_path / "out", editors="ft_breadth,none")
    first, second = rows_of(config, config.editors)
    assert "'Person 24 lives in' to 'Paris' and 'Nowhere'" in first["error"]
    assert second["n"] == 5  # each alone: no contradiction


def test_a_budget_of_minutes_is_turned_into_steps(tiny_files: Files, tmp_path: Path):
    config = settings(tiny_files, tmp_path / "out", editors="mend", steps=0, minutes=0.02)
    (row,) = rows_of(config, config.editors)
    assert row["steps"] >= 1 and row["config"]["steps"] == row["steps"]


def test_many_at_once_and_the_ablations_are_methods(tiny_files: Files, tmp_path: Path):
    config = settings(tiny_files, tmp_path / "out", editors="none")
    named = contenders(config, "enn,none", config.own)
    several = many_at_once(named, "1, 5")
    assert list(several) == ["enn_1", "enn_5", "none_1", "none_5"]
    assert several["enn_5"].config.k == 5 and several["enn_5"].config.batch == 1
    with pytest.raises(ValueError, match="'x' is none"):
        many_at_once(named, "1,x")
    with pytest.raises(ValueError, match="known are mend, no_sharing, no_norm, no_identity"):
        ablations(config, "half")
    rows = run(config, many_at_once(contenders(config, "none", config.own), "2,8,9"))
    assert [row.get("n") for row in rows] == [8, 8, None]
    assert "too few to edit 9 at once" in rows[2]["error"]


def test_unknown_names_and_budgets(tiny_files: Files, tmp_path: Path):
    config = settings(tiny_files, tmp_path / "out")
    with pytest.raises(ValueError, match="'rome'; known are mend, ft, ft_kl, ft_breadth"):
        contenders(config, "mend,rome", config.own)
    with pytest.raises(ValueError, match="no editors are named"):
        contenders(config, " ,", config.own)
    empty = settings(tiny_files, tmp_path / "out", steps=0, minutes=0.0)
    with pytest.raises(OptionError, match="--minutes 0.0: from 0.001"):
        rows_of(empty, "none")
