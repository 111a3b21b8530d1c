"""Two processes on one machine: they train as one does, and the loss of one is no hang.

The processes find each other on loopback and compute together through gloo; see tiny_hosts.py.
"""

import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare import assert_close
from tiny_hosts import Setting
from tiny_run import ROOT, start

from mend_jax.parallel import HEARTBEAT
from mend_jax.training.checkpoint import Checkpoints

SCRIPT = ROOT / "tests" / "support" / "tiny_hosts.py"


@pytest.fixture(scope="module")
def setting() -> Setting:
    """The run in this process alone."""
    return Setting()


@pytest.fixture(scope="module")
def single(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What it ends with if it is never interrupted."""
    return setting.run(tmp_path_factory.mktemp("single"))


def two(directory: Path, *options: str) -> list[subprocess.Popen[str]]:
    """Both processes of a run, started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    join = ("--address", address, "--processes", "2", "--rank")
    cwd = directory.parent
    return [start(cwd, SCRIPT, directory, *options, *join, str(rank)) for rank in (0, 1)]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """(exit code, output, errors) of each."""
    found: list[Any] = [process.communicate(timeout=300) for process in processes]
    return [(p.returncode, *said) for p, said in zip(processes, found, strict=True)]


def test_two_processes_are_one(single: dict[str, np.ndarray], tmp_path: Path):
    """Base and editor split over both; only the first talks and writes metrics."""
    directory = tmp_path / "run"
    (code, out, error), (code_1, out_1, error_1) = ends(
        two(directory, "--mesh", "1x2", "--shard-editor")
    )
    assert (code, code_1) == (0, 0), error + error_1
    assert numbers(out) == list("12345678") and numbers(out_1) == []
    assert (directory / "metrics.jsonl").read_text().count("\n") == 6
    assert_close(dict(np.load(directory / "end.npz")), single, 1e-5)


def numbers(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.isdigit()]


def test_a_signal_to_one_process_stops_all_at_the_same_step(
    setting: Setting, single: dict[str, np.ndarray], tmp_path: Path
):
    """They all write its checkpoint, from which the run goes on."""
    directory = tmp_path / "run"
    processes = two(directory, "--mesh", "2x1", "--pause", "0.2")
    for line in processes[0].stdout or ():
        if line.strip() == "4":
            processes[1].send_signal(signal.SIGTERM)
            break
    ended = ends(processes)
    told = [re.findall(r"stopped by SIGTERM at step (\d)", error) for _, _, error in ended]
    assert [code for code, _, _ in ended] == [143, 143] and told[0] == told[1], ended
    with Checkpoints(directory / "checkpoints") as found:
        assert found.steps()[-1] == int(told[0][0]) and 4 <= found.steps()[-1] < 8
    assert_close(setting.run(directory, resume=True), single, 1e-5)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_run_which_goes_on_from_its_checkpoint_in_one(
    setting: Setting, single: dict[str, np.ndarray], tmp_path: Path, victim: int
):
    """SIGKILL for the one that coordinates, or the other; and resumed on a smaller mesh."""
    directory = tmp_path / "run"
    processes = two(directory, "--mesh", "2x1", "--pause", "0.2")
    for line in processes[0].stdout or ():
        if line.strip() == "5":
            processes[victim].kill()
            break
    killed = time.monotonic()
    code, _, error = ends(processes)[1 - victim]
    assert code not in (0, -signal.SIGKILL) and time.monotonic() - killed < 4 * HEARTBEAT
    assert "another process of this run was lost" in error or "another task died" in error
    assert not (directory / "end.npz").exists()
    with Checkpoints(directory / "checkpoints") as found:
        assert found.steps() == [3]
    assert_close(setting.run(directory, resume=True), single, 1e-5)
