"""The directory of a run: what it may hold before, and that one process at a time works there."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tiny_run import start

from mend_jax.runs.options import ExperimentError
from mend_jax.runs.out import LOCK, OWNER, STARTED, Out, begin, locked, taken

OPTIONS = {"model": "a", "rank": 5, "rates": (1, 2), "out": "x", "resume": False, "log_every": 1}


def out_in(directory: Path, resume: bool = True, **changes: Any) -> Out:
    return Out(directory, OPTIONS | {"resume": resume} | changes, resume, "results.json")


def state_of(out: Out) -> str:
    with taken(out, lambda message: None) as state:
        return state


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", [None, (), (LOCK, OWNER), (f"{STARTED}.draft",)])
def test_what_holds_no_run_is_free(tmp_path: Path, resume: bool, left: tuple[str, ...] | None):
    """Absent, empty, or left by a process that was killed before it began."""
    directory = tmp_path / "out"
    if left is not None:
        directory.mkdir()
        for name in left:
            (directory / name).write_text("{")
    assert state_of(out_in(directory, resume)) == "free"
    assert directory.exists() == (left is not None)


def test_a_run_goes_from_free_to_begun_to_finished(tmp_path: Path):
    out = out_in(tmp_path, resume=False)
    with taken(out) as state:
        assert state == "free"
        begin(out)
    (tmp_path / "trunk").mkdir()
    for name in ("results.json.draft", "trunk/x.draft", ".tmpX4AvL"):
        (tmp_path / name).touch()
    assert state_of(out_in(tmp_path)) == "begun"
    assert names(tmp_path) == [STARTED, "trunk"] and names(tmp_path / "trunk") == []
    (tmp_path / "results.json").touch()
    assert state_of(out_in(tmp_path, out="y", log_every=7)) == "finished"


def test_a_run_is_not_begun_where_another_one_is(tmp_path: Path):
    begin(out_in(tmp_path))
    with pytest.raises(ExperimentError, match="not empty: give another --out, or --resume to go"):
        state_of(out_in(tmp_path, resume=False))
    (tmp_path / "results.json").touch()
    with pytest.raises(ExperimentError, match="--resume to leave that run"):
        state_of(out_in(tmp_path, resume=False))


def test_what_is_no_run_is_neither_begun_nor_resumed(tmp_path: Path):
    (tmp_path / "a file").touch()
    with pytest.raises(ExperimentError, match="is not empty: give another --out$"):
        state_of(out_in(tmp_path, resume=False))
    with pytest.raises(ExperimentError, match=f"holds a file, but no {STARTED}"):
        state_of(out_in(tmp_path))
    with pytest.raises(ExperimentError, match="it is a file"):
        state_of(out_in(tmp_path / "a file"))
    assert names(tmp_path) == ["a file"]


def test_other_options_are_all_named(tmp_path: Path):
    begin(out_in(tmp_path))
    with pytest.raises(ExperimentError) as error:
        state_of(out_in(tmp_path, rank=7, model="b", log_every=3))
    told = "was started with other options: --model was 'a', is 'b'; --rank was 5, is 7"
    assert str(error.value).endswith(told)


DAMAGED = ["", "{", "[]", "7", '"x"', "null", "\ud800", "[" * 100_000, "9" * 5_000]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_options_are_said(tmp_path: Path, text: str):
    (tmp_path / STARTED).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ExperimentError, match=f"{STARTED} does not hold the options of a run"):
        state_of(out_in(tmp_path))


HOLD = """
import sys, time
from pathlib import Path
from mend_jax.runs.out import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_one_process_at_a_time_and_the_error_says_which(tmp_path: Path):
    """The lock ends with its process, however that ends; then the directory can be taken."""
    directory = tmp_path / "out"
    child = start(tmp_path, "-c", HOLD, directory)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with pytest.raises(ExperimentError) as error:
        state_of(out_in(directory))
    told = str(error.value)
    assert told.startswith(f"{directory} is in use by process {child.pid} on {os.uname().nodename}")
    assert " since 20" in told and f"(-c {directory})" in told and "give another --out" in told
    child.kill()
    assert child.wait() == -signal.SIGKILL and names(directory) == [LOCK, OWNER]
    child.communicate()
    assert state_of(out_in(directory)) == "free"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}"])
def test_an_owner_that_is_not_known_is_another_process(tmp_path: Path, text: str | None):
    with locked(tmp_path):
        (tmp_path / OWNER).unlink()
        if text is not None:
            (tmp_path / OWNER).write_text(text)
        with pytest.raises(ExperimentError, match="in use by another process: wait"):
            state_of(out_in(tmp_path))
    assert names(tmp_path) == []


def test_the_owner_says_when_and_what(tmp_path: Path):
    with locked(tmp_path):
        owner = json.loads((tmp_path / OWNER).read_text())
    assert owner["pid"] == os.getpid() and list(owner) == ["pid", "host", "since", "command"]


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(lock: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("mend_jax.runs.out.FileLock.acquire", refused)
    said: list[str] = []
    with taken(out_in(tmp_path), said.append) as state:
        assert state == "free"
    assert said[0].startswith(f"warning: {tmp_path} cannot be locked")
