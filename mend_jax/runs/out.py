"""The directory that a command writes to: free, begun or finished, and one process at a time.

    free      absent or empty; or, with --resume, what a run left that was killed before it began
    begun     holds run.json, the options of a run: --resume goes on with it
    finished  holds the file that is written last, too: --resume leaves it as it is

So one command line with --resume can be given again until there is a result, and after that.
"""

import contextlib
import errno
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from filelock import FileLock, Timeout
from jax.experimental import multihost_utils

from mend_jax.files import read_json, write_text
from mend_jax.parallel import is_first
from mend_jax.runs.options import ExperimentError, TrainConfig, as_json

STARTED = "run.json"
"""The options of a run, written when it begins."""
LOCK, OWNER = ".lock", ".owner"
"""The first is locked as long as a process works in the directory, the second says which."""
DRAFTS = ("*.draft", ".tmp*")
"""Names of files that are being written, by this package or by safetensors."""

State = Literal["free", "begun", "finished"]
_STATES: tuple[State, ...] = ("free", "begun", "finished")
_REFUSED = -1

MAY_DIFFER = (
    "out", "resume", "log_every", "checkpoint_every", "mesh", "shard_editor", "distributed",
    "address", "processes", "process_id", "stream",
)  # fmt: skip
"""Options that a run may be resumed with other values of."""


class Out(NamedTuple):
    """A directory, and the run that is to be made there.

    options: as they stand in run.json. resume: whether one that was begun is to go on. last: name
    of the file that is written last.
    """

    directory: Path
    options: Mapping[str, Any]
    resume: bool
    last: str


def out_of(config: TrainConfig, last: str) -> Out:
    """Of a training run, or of one that holds several."""
    return Out(config.out, as_json(config), config.resume, last)


@contextlib.contextmanager
def taken(out: Out, say: Callable[[str], None] = print) -> Iterator[State]:
    """Holds the directory, and gives its state; of several processes, the first looks for all.

    Raises:
      ExperimentError: it is not empty, and no run to be resumed with these options; or another
        process works in it.
    """
    if not is_first():
        yield _heard()
        return
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(out.directory, say))
            state = _state(out)
        except BaseException:
            _tell(_REFUSED)
            raise
        if state == "begun":
            for draft in _drafts(out.directory):  # of a process that was killed
                draft.unlink()
        if state == "finished":
            say(f"{out.directory} is finished: {out.last} is there, and nothing is left to do")
        _tell(_STATES.index(state))
        yield state


def begin(out: Out) -> None:
    """From here on the directory is in use."""
    write_text(out.directory / STARTED, json.dumps(out.options, indent=1) + "\n")


def _tell(found: int) -> None:
    """From the first process to the others."""
    if jax.process_count() > 1:
        multihost_utils.broadcast_one_to_all(np.int32(found))


def _heard() -> State:
    """From the first process."""
    found = int(multihost_utils.broadcast_one_to_all(np.int32(0)))
    if found == _REFUSED:
        raise ExperimentError("the first process cannot use --out, and says why")
    return _STATES[found]


def _state(out: Out) -> State:
    directory, resume = out.directory, out.resume
    there = contents(directory)
    if not there - {path.name for path in _drafts(directory)}:
        return "free"
    finished = out.last in there
    if not resume:
        again = f", or --resume to {'leave' if finished else 'go on with'} that run"
        raise ExperimentError(
            f"{directory} is not empty: give another --out{again * (STARTED in there)}"
        )
    if STARTED not in there:
        raise ExperimentError(
            f"--resume: {directory} holds {min(there)}, but no {STARTED}, so no run that could be "
            "resumed: give another --out"
        )
    before, now = _options(directory / STARTED), json.loads(json.dumps(out.options))
    different = [
        f"--{k.replace('_', '-')} was {before.get(k)!r}, is {v!r}"
        for k, v in now.items()
        if k not in MAY_DIFFER and before.get(k) != v
    ]
    if different:
        raise ExperimentError(
            f"--resume: {directory} was started with other options: {'; '.join(different)}"
        )
    return "finished" if finished else "begun"


def contents(directory: Path) -> set[str]:
    """Names of all that is there, but for the lock."""
    return {path.name for path in directory.iterdir()} - {LOCK, OWNER}


def _options(path: Path) -> dict[str, Any]:
    """Of the run that was begun.

    Raises:
      ExperimentError: the file is damaged.
    """
    try:
        options = read_json(path, ExperimentError)
    except ExperimentError as error:
        options = str(error)
    if not isinstance(options, dict):
        raise ExperimentError(
            f"{path} does not hold the options of a run ({str(options)[:200]}): give another "
            "--out, or empty that directory to begin anew"
        )
    return options


def _drafts(directory: Path) -> list[Path]:
    """Files that were never finished, there and one folder below."""
    found = [path for name in DRAFTS for path in directory.glob(name)]
    found += [path for name in DRAFTS for path in directory.glob(f"*/{name}")]
    return [path for path in found if path.is_file()]


@contextlib.contextmanager
def locked(directory: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Keeps other processes out of a directory, which is made; the end of the process unlocks it.

    Raises:
      ExperimentError: another one is there, and which; or it is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise ExperimentError(f"{directory} is not empty: it is a file; give another --out")
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise ExperimentError(
            f"{directory} is in use by {_owner(directory)}: wait for its end, or give another --out"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP):
            raise
        say(f"warning: {directory} cannot be locked ({error}): let no other process work in it")
        yield
        return
    try:
        (directory / OWNER).write_text(json.dumps(_me()), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):  # of a system that removes no open file
            (directory / OWNER).unlink(missing_ok=True)
            (directory / LOCK).unlink(missing_ok=True)  # who has it open sees it
        lock.release()
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                directory.rmdir()


def _me() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return {
        "pid": os.getpid(), "host": platform.node(), "since": since,
        "command": shlex.join(sys.argv),
    }  # fmt: skip


def _owner(directory: Path) -> str:
    """Which process works there, as far as that can be read."""
    try:
        of = json.loads((directory / OWNER).read_text(encoding="utf-8"))
        return f"process {of['pid']} on {of['host']} since {of['since']} ({of['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
