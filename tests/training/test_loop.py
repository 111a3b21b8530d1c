"""The training loop: killed and resumed is uninterrupted, and every way to fail says what to do."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_equal
from tiny_fit import SCHEDULE, Setting, all_arrays
from tiny_run import ROOT, start

from mend_jax.training.checkpoint import CheckpointError, Checkpoints
from mend_jax.training.loop import Schedule, TrainingError
from mend_jax.training.stopping import SIGNALS, Stopped, stop_requests

SCRIPT = ROOT / "tests" / "support" / "tiny_fit.py"


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


@pytest.fixture(scope="module")
def whole(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that was never interrupted: (its directory, what it ended with)."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, setting.fit(directory)


def rows(directory: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the seconds."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def checkpoints(directory: Path) -> list[int]:
    with Checkpoints(directory / "checkpoints") as found:
        return found.steps()


def test_a_run_learns_and_keeps_its_best_editor(setting: Setting, whole: Any):
    directory, done = whole
    assert not done.stopped_early and int(done.progress.train.step) == 12
    assert [row["step"] for row in done.history] == [1, 2, 3, 4, 6, 8, 9, 10, 12]
    assert [row["step"] for row in done.history if "dev_loss" in row] == [3, 6, 9, 12]
    assert rows(directory) == [
        {k: v for k, v in row.items() if k != "seconds"} for row in done.history
    ]
    losses = {row["step"]: row["dev_loss"] for row in done.history if "dev_loss" in row}
    best = int(done.progress.best_step)
    assert losses[best] == min(losses.values())
    assert done.progress.best_loss == np.float32(losses[best])
    assert setting.develop(done.progress.best)["loss"] == losses[best]
    assert checkpoints(directory) == [8, 12]  # two are kept


def test_killed_and_resumed_is_uninterrupted(whole: Any, tmp_path: Path):
    """SIGKILL in the middle of a run; another process goes on; all arrays bit for bit the same."""
    killed = tmp_path / "killed"
    child = start(tmp_path, SCRIPT, killed, "--pause", "0.3")
    for line in child.stdout:
        if line.strip() == "7":
            child.kill()
            break
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert not (killed / "end.npz").exists() and checkpoints(killed) == [4]
    with (killed / "metrics.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')  # cut off in the middle of a row
    resumed = start(tmp_path, SCRIPT, killed, "--resume")
    out, error = resumed.communicate()
    assert resumed.returncode == 0, error
    assert out.split("\n")[:2] == ["resuming from step 4", "5"]
    wanted, got = all_arrays(whole[1].progress), np.load(killed / "end.npz")
    assert set(wanted) == set(got)
    for part in ("phi", "stats", "optimiser", "best/", "best_loss", "step"):
        assert any(part in name for name in wanted), part
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name], err_msg=name)
    assert rows(killed) == rows(whole[0])


def test_resuming_a_finished_run_changes_nothing(setting: Setting, whole: Any):
    directory, done = whole
    before = rows(directory)
    again = setting.fit(directory, resume=True)
    assert_equal(again.progress, done.progress)
    assert rows(directory) == before and not again.stopped_early


def falling_until(best: int) -> Any:
    """Development losses that fall up to the step `best` and rise after it."""
    return lambda state: {"loss": abs(float(steps_seen(state)) - best)}


def steps_seen(state: Any) -> float:
    """Steps that the statistics have seen: 3 edits a step, 2 live rows each."""
    return float(jax.tree.leaves(state.stats)[0]) / ROWS_A_STEP


ROWS_A_STEP = 3 * 2  # the last block runs at the positions of the answers only


def test_early_stop(setting: Setting, tmp_path: Path):
    schedule = Schedule(40, log_every=100, evaluate_every=2, checkpoint_every=100, patience=6)
    said: list[str] = []
    done = setting.fit(tmp_path, schedule, develop=falling_until(4), said=said)
    assert done.stopped_early and int(done.progress.train.step) == 10
    assert int(done.progress.best_step) == 4 and float(done.progress.best_loss) == 0
    assert steps_seen(done.progress.best) == 4
    assert said == ["stopped early: no better development loss for 6 steps"]
    assert checkpoints(tmp_path) == [10]
    again = setting.fit(tmp_path, schedule, develop=falling_until(4), resume=True)
    assert again.stopped_early
    assert_equal(again.progress, done.progress)


def test_nothing_stops_early_without_a_look(setting: Setting, tmp_path: Path):
    """Patience may end between two looks; then there is one more."""
    schedule = Schedule(40, log_every=100, evaluate_every=30, checkpoint_every=100, patience=4)
    done = setting.fit(tmp_path, schedule, develop=falling_until(4))
    assert [row["step"] for row in done.history if "dev_loss" in row] == [4, 8]
    assert done.stopped_early and steps_seen(done.progress.best) == 4


def test_without_a_usable_gradient_training_stops_and_says_so(setting: Setting, tmp_path: Path):
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), setting.params)
    schedule = SCHEDULE._replace(steps=100, log_every=50, evaluate_every=100, stall_limit=5)
    cases = ({"params": broken}, "5 not finite in all"), ({"step": setting.idle_step}, "0 not fin")
    for i, (changes, message) in enumerate(cases):
        with pytest.raises(TrainingError, match="lower the learning rate") as error:
            setting.fit(tmp_path / str(i), schedule, **changes)
        assert "stopped at step 5: the last 5 steps" in str(error.value)
        assert message in str(error.value)


def test_a_development_loss_that_is_never_finite_is_said(setting: Setting, tmp_path: Path):
    with pytest.raises(TrainingError, match="development loss was never finite"):
        setting.fit(tmp_path, SCHEDULE._replace(steps=3), develop=lambda state: {"loss": np.nan})


@pytest.mark.parametrize("left", ["nothing", "half a checkpoint", "half a row"])
def test_resuming_what_has_no_checkpoint_is_a_start(
    setting: Setting, whole: Any, tmp_path: Path, left: str
):
    """However it came to be: never begun, killed while its first checkpoint was written, ..."""
    if left == "half a checkpoint":  # a folder under the name Orbax writes in
        (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp" / "progress").mkdir(parents=True)
    if left == "half a row":
        (tmp_path / "metrics.jsonl").write_text('{"step": 1, "lo')
    said: list[str] = []
    done = setting.fit(tmp_path, resume=True, said=said)
    assert said == [f"no checkpoint in {tmp_path / 'checkpoints'}: starting at step 0"]
    assert_equal(done.progress, whole[1].progress)
    assert rows(tmp_path) == rows(whole[0])


def test_a_run_does_not_begin_among_the_checkpoints_of_another(setting: Setting, whole: Any):
    before = rows(whole[0])
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run: resume it"):
        setting.fit(whole[0])
    assert rows(whole[0]) == before


def signals_at(step: int, *numbers: int) -> Callable[[int, dict[str, float]], None]:
    """A report that sends them to this process."""

    def report(number: int, row: dict[str, float]) -> None:
        if number == step:
            for one in numbers:
                signal.raise_signal(one)

    return report


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_a_checkpoint(
    setting: Setting, whole: Any, tmp_path: Path, number: signal.Signals
):
    """Also one that its launcher passes on twice. What goes on from there is undisturbed."""
    handlers = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(Stopped, match=f"stopped by {number.name} at step 6, whose") as stopped:
        setting.fit(tmp_path, report=signals_at(6, number, number))
    assert stopped.value.number == number and not isinstance(stopped.value, Exception)
    assert [signal.getsignal(n) for n in SIGNALS] == handlers
    assert checkpoints(tmp_path) == [4, 6]
    done = setting.fit(tmp_path, resume=True)
    assert_equal(done.progress, whole[1].progress)
    assert rows(tmp_path) == rows(whole[0])


def test_a_second_signal_is_obeyed_at_once():
    with pytest.raises(Stopped, match="^stopped by SIGTERM$"), stop_requests() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked() == signal.SIGTERM
        with mock.patch("time.monotonic", lambda: float("inf")):
            signal.raise_signal(signal.SIGTERM)


DAMAGE: dict[str, Callable[[list[str]], list[str]]] = {
    "cut": lambda lines: [*lines[:2], lines[2][:9]],
    "no row": lambda lines: [*lines[:2], "}{", *lines[3:]],
    "another type": lambda lines: [*lines[:1], "[]", '{"step": "2"}', *lines[3:]],
    "another number": lambda lines: [x.replace("3", "4") for x in lines],
    "lost": lambda lines: [*lines[:2], *lines[3:]],
    "empty": lambda lines: [],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_rows_that_were_damaged_are_made_again(
    setting: Setting, whole: Any, tmp_path: Path, damage: str
):
    with pytest.raises(Stopped):
        setting.fit(tmp_path, report=signals_at(8, signal.SIGTERM))
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(DAMAGE[damage](path.read_text().splitlines())))
    done = setting.fit(tmp_path, resume=True)
    assert rows(tmp_path) == rows(whole[0])
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in done.history] == rows(
        tmp_path
    )


def truncate_largest(directory: Path, n: int = 3) -> None:
    files = [path for path in directory.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda p: p.stat().st_size)[-n:]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_checkpoint_is_passed_over_and_said(setting: Setting, whole: Any, tmp_path: Path):
    setting.fit(tmp_path)
    assert checkpoints(tmp_path) == [8, 12]
    truncate_largest(tmp_path / "checkpoints" / "12")
    said: list[str] = []
    done = setting.fit(tmp_path, resume=True, said=said)
    assert said[0].startswith("the checkpoint of step 12 cannot be read")
    assert said[1] == "resuming from step 8"
    assert_equal(done.progress, whole[1].progress)
    assert rows(tmp_path) == rows(whole[0])
    assert checkpoints(tmp_path) == [8, 12]


def test_if_no_checkpoint_can_be_read_none_is_deleted(setting: Setting, tmp_path: Path):
    setting.fit(tmp_path, SCHEDULE._replace(steps=5))
    for step in (4, 5):
        truncate_largest(tmp_path / "checkpoints" / str(step))
    with pytest.raises(CheckpointError, match=r"none of the checkpoints .* \[4, 5\]"):
        setting.fit(tmp_path, resume=True)
    assert checkpoints(tmp_path) == [4, 5]


def test_a_full_disk_ends_in_an_error_that_names_the_last_good_checkpoint(
    setting: Setting, tmp_path: Path
):
    """No file can grow from step 5 on (RLIMIT_FSIZE); checkpoint 8 fails, checkpoint 4 stays."""
    child = start(tmp_path, SCRIPT, tmp_path, "--full-after", "5")
    out, error = child.communicate()
    assert child.returncode == 1
    assert out.split() == [str(i) for i in range(1, 9)]
    last = error.strip().splitlines()[-1]
    assert last.startswith("CheckpointError: the checkpoint of step 8 could not be written")
    assert last.endswith("the last good one is step 4")
    assert checkpoints(tmp_path) == [4]
    said: list[str] = []
    schedule = SCHEDULE._replace(steps=5)
    done = setting.fit(tmp_path, schedule, resume=True, said=said)
    assert said == ["resuming from step 4"] and int(done.progress.train.step) == 5
    assert all(np.all(np.isfinite(x)) for k, x in all_arrays(done.progress).items() if "phi" in k)
