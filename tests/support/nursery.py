"""A process that has imported everything and forks a child for each command that it is told:

    python tests/support/nursery.py

reads one request a line (JSON: `Request`) and answers with one line, {"code": ..., "events": ...}.
A child that is to be killed kills itself by SIGKILL: so many seconds after it has been born, or so
many after the file event of a number. A file event is a file opened to be written, or a name made,
moved or removed, in the folder that is watched.
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from small_run import small_run

from mend_jax.commands import train  # noqa: F401  (what takes the time)
from mend_jax.commands.console import console

NAMES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
LIMIT = 60.0
"""Seconds after which a child hangs, and is killed: its code is then None."""


class Request(NamedTuple):
    """argv: of the command; empty: `small_run`. watched: folder. log: file of what the child
    prints, and, with the ending .events, its file events. event: number of the one at which it is
    killed (-1: none, seconds count from birth). seconds: until it is killed, None: never."""

    argv: list[str]
    watched: str
    log: str
    event: int = -1
    seconds: float | None = None


def kill_in(seconds: float) -> None:
    """Kills this process."""

    def kill() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start() if seconds else kill()


def watch(request: Request, events: list[str]) -> None:
    """Notes file events from now on, and kills at the one that is asked for."""

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        writes = name == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if not (writes or name in NAMES) or not str(arguments[0]).startswith(request.watched):
            return
        if len(events) == request.event:
            kill_in(request.seconds or 0.0)
        to = str(arguments[1]) if name == "os.rename" else str(arguments[0])
        events.append(f"{name} {to.removeprefix(request.watched)}")

    sys.addaudithook(hook)


def live(request: Request) -> None:
    """The child."""
    log = os.open(request.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    events: list[str] = []
    watch(request, events)
    if request.event < 0 and request.seconds is not None:
        kill_in(request.seconds)
    sys.argv, code = request.argv, 0
    try:
        small_run(Path(request.watched)) if not request.argv else console()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 70
    sys.stdout.flush()
    Path(f"{request.log}.events").write_text(json.dumps(events))
    os._exit(code)


def main() -> None:
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    for line in sys.stdin:
        request = Request(**json.loads(line))
        child, end = os.fork(), time.monotonic() + LIMIT
        if not child:
            live(request)
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                code: int | None = os.waitstatus_to_exitcode(status)
                break
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                code = None
                break
            time.sleep(0.005)
        print(json.dumps({"code": code}), flush=True)


if __name__ == "__main__":
    main()
