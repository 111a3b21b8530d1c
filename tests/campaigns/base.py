"""What a campaign is, and the law that it holds every attempt to.

The law: the same result as without the damage, or one clear error, within a minute and 2 GB.
"""

import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

SECONDS, BYTES = 60, 2 * 2**30
"""What one attempt may take, beyond what the process has already."""

Outcome = Literal["same", "error", "other", "foreign", "hang"]
"""same: as without the damage. error: one clear error. The rest breaks the law: another result
without a word, an exception that is not of this package, no end (or no end of memory)."""

LAWFUL: tuple[Outcome, ...] = ("same", "error")


class Attempt(NamedTuple):
    """kind: what was tried, a row of the table. detail: enough to try it again by hand."""

    kind: str
    outcome: Outcome
    detail: str = ""


class Campaign(NamedTuple):
    """What each file of this folder ends with, and the table in `__main__` lists.

    attempts(folder, random): tries for ever, in an empty folder of its own.
    """

    name: str
    attempts: Callable[[Path, Random], Iterator[Attempt]]


class _Hang(BaseException):
    """Not an Exception, so that no reader takes it for a damaged file."""


def judged(kind: str, read: Callable[[], Any], same: Callable[[Any], bool], detail: str) -> Attempt:
    """What `read` comes to, in this process; `same` says whether its result is the right one."""

    def stop(*_: object) -> None:
        raise _Hang

    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_in_use() + BYTES, before[1]))
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        result = read()
    except (_Hang, MemoryError) as error:
        return Attempt(kind, "hang", f"{detail}: {type(error).__name__}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what Rust code panics with is no Exception
        if is_clear(error):
            return Attempt(kind, "error", detail)
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        return Attempt(kind, "foreign", f"{detail}: {what}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
    return Attempt(kind, "same" if same(result) else "other", detail)


def is_clear(error: BaseException) -> bool:
    """One of this package's errors, or the system's own about a path, with something to read."""
    ours = type(error).__module__.split(".")[0] == "mend_jax"
    return (ours or isinstance(error, OSError)) and bool(str(error).strip())


def _in_use() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
