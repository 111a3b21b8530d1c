"""What is kept of streamed runs is shown, and cleared: `mend-jax states`."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from tiny_run import save_folder

import mend_jax as mj
from mend_jax.commands.states import DAY, StatesOptions, states
from mend_jax.data.states_kept import all_kept
from mend_jax.data.trunk_pass import Plan
from mend_jax.data.trunk_stream import kept_states, plan_stream, stream_trunk
from mend_jax.models.stages import split

SITES = "layers_1/mlp/up_proj"


@pytest.fixture(autouse=True)
def kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEND_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trunk"


@pytest.fixture
def plans(tmp_path: Path) -> list[Plan]:
    """Of two sets of texts, whose states are kept; the second was of use yesterday."""
    folder = save_folder(tmp_path / "a_llama")
    base = mj.load(str(folder), parts="tail", sites=SITES)
    trunk, _ = split(base.model, SITES)
    assert trunk is not None
    texts = [[np.arange(3, 9 + i, dtype=np.int32) for i in range(n)] for n in (1, 4)]
    made = [plan_stream(base, trunk, some) for some in texts]
    for plan in made:
        stream_trunk(base, trunk, plan)
    set_back(made[1], 1.5)
    return made


def set_back(plan: Plan, days: float) -> None:
    for path in plan.states.parent.glob(f"{plan.states.stem}.*"):
        os.utime(path, (time.time(), time.time() - days * DAY))


def shown(capsys: pytest.CaptureFixture[str], **options: Any) -> list[dict[str, Any]]:
    capsys.readouterr()
    states(StatesOptions(json=True, **options))
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_what_there_is(plans: list[Plan], capsys: pytest.CaptureFixture[str]):
    rows = shown(capsys)
    assert [row["texts"] for row in rows] == [1, 4] and [row["layers"] for row in rows] == [2, 2]
    assert all(row["base"].endswith("a_llama") and row["dtypes"] == "float32" for row in rows)
    assert [row["days unused"] for row in rows] == [0.0, 1.5]
    for one, plan in zip(all_kept(), plans, strict=True):
        assert plan.size < one.bytes < plan.size + 2000
    assert kept_states(plans[1]) is not None  # which is of use today
    assert [row["days unused"] for row in shown(capsys)] == [0.0, 0.0]
    states(StatesOptions())
    assert re.search(r"2 kept, 0\.0 MB, in \S+trunk", capsys.readouterr().out)


def test_what_is_cleared(
    plans: list[Plan], kept_in: Path, capsys: pytest.CaptureFixture[str]
):
    assert shown(capsys, clear=True, base="another") == []
    assert shown(capsys, clear=True, unused=2) == []
    assert [row["texts"] for row in shown(capsys, clear=True, unused=1)] == [4]
    assert kept_states(plans[1]) is None and kept_states(plans[0]) is not None
    with FileLock(plans[0].states.with_suffix(".lock")):
        (row,) = shown(capsys, clear=True)
        assert row["cleared"] is False
    assert kept_states(plans[0]) is not None
    states(StatesOptions(clear=True))
    assert "1 cleared" in capsys.readouterr().out
    assert {path.suffix for path in kept_in.glob("*/*")} == {".lock", ".json"}


def test_what_a_killed_run_has_left(plans: list[Plan], capsys: pytest.CaptureFixture[str]):
    states(StatesOptions(clear=True))
    left = plans[0].states.with_suffix(".draft")
    left.write_bytes(bytes(5_000_000))
    (left.parent / "made_by.json").write_text("{")
    (row,) = shown(capsys, clear=True)
    assert (row["base"], row["texts"], row["MB"]) == ("unknown", "unfinished", 5.0)
    assert not left.exists()


def test_nothing_is_kept(capsys: pytest.CaptureFixture[str]):
    assert shown(capsys) == []
