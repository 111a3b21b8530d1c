"""Training runs that are killed, and given again by the same command line until they end.

However often and wherever SIGKILL came: the same editor, results and rows, bit for bit, but for the
seconds in them; and no way in which the command would not go on.
"""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.campaigns.base import Attempt, Campaign, Outcome

SUPPORT = Path(__file__).parents[1] / "support"
CHECKPOINT = "os.rename /checkpoints/"
MOST = 4
"""Kills of one run."""
SMALL = 12
"""Small runs for each one that is whole."""


class Ended(NamedTuple):
    """A run: its exit code (None: it hung), what it printed, and its file events."""

    code: int | None
    said: str
    events: list[str]


class Runs:
    """Runs of one command line, each in a process of its own. Use as a context manager.

    small: whether they are of `small_run`, many of which can be killed in the time of one.
    """

    def __init__(self, folder: Path) -> None:
        sys.path[:0] = [str(SUPPORT), str(SUPPORT.parent)]
        from tiny_run import ROOT, python_environment

        self.out, self.log = folder / "out", folder / "log"
        self.argv = [
            "mend-jax", "train", "--resume", "--out", str(self.out), "--model",
            str(folder / "model"), "--train", str(folder / "train.jsonl"), "--validation",
            str(folder / "validation.jsonl"), "--trunk-cache", "disk", *OPTIONS,
        ]  # fmt: skip
        environment = python_environment(folder) | {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self.small = False
        self.nursery = subprocess.Popen(
            [sys.executable, str(SUPPORT / "nursery.py")], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, *_: object) -> None:
        self.nursery.kill()
        self.nursery.communicate()

    def make_files(self) -> None:
        """The base and the records of the command."""
        from tiny_run import save_folder, some_records

        from mend_jax.data.records import write_records

        folder = self.out.parent
        write_records(folder / "train.jsonl", some_records(0, 16))
        write_records(folder / "validation.jsonl", some_records(14, 6))
        save_folder(folder / "model")

    def run(self, **kill: Any) -> Ended:
        """Once, killed as `nursery.Request` says."""
        argv = [] if self.small else self.argv
        asked = {"argv": argv, "watched": str(self.out), "log": str(self.log), **kill}
        events = self.log.with_name(f"{self.log.name}.events")
        events.unlink(missing_ok=True)
        assert self.nursery.stdin is not None and self.nursery.stdout is not None
        self.nursery.stdin.write(json.dumps(asked) + "\n")
        self.nursery.stdin.flush()
        code = json.loads(self.nursery.stdout.readline())["code"]
        found = json.loads(events.read_text()) if code == 0 else []
        return Ended(code, self.log.read_text(errors="replace"), found)


OPTIONS = (
    "--no-scope", "--dev", "3", "--steps", "8", "--batch", "2", "--rank", "4", "--calibrate", "2",
    "--learning-rate", "1e-3", "--sites", "layers_1/mlp/down_proj", "--longest", "24",
    "--log-every", "1", "--evaluate-every", "4", "--checkpoint-every", "3",
)  # fmt: skip


class Undisturbed(NamedTuple):
    """What a run comes to, its file events up to its first checkpoint and in all, and seconds."""

    result: dict[str, Any]
    first: int
    events: int
    seconds: float


def attempts(folder: Path, random: Random) -> Iterator[Attempt]:
    """One run an attempt, killed several times."""
    with Runs(folder) as runs:
        known: dict[bool, Undisturbed] = {}
        for number in itertools.count():
            runs.small = number % (SMALL + 1) != SMALL
            if runs.small not in known:
                known[runs.small] = _undisturbed(runs)
            shutil.rmtree(runs.out, ignore_errors=True)
            yield _attempt(runs, known[runs.small], random)


def _undisturbed(runs: Runs) -> Undisturbed:
    if not runs.small:
        runs.make_files()
    for _ in range(2):  # the first one compiles
        shutil.rmtree(runs.out, ignore_errors=True)
        began = time.monotonic()
        done = runs.run()
        if done.code != 0:
            raise RuntimeError(f"undisturbed, it ends with {done.code}: {done.said}")
    saved = (i for i, event in enumerate(done.events) if event.startswith(CHECKPOINT))
    seconds = time.monotonic() - began
    return Undisturbed(result_of(runs.out), next(saved), len(done.events), seconds)


def _attempt(runs: Runs, whole: Undisturbed, random: Random) -> Attempt:
    """One run, killed up to `MOST` times: at a file event, or at any time."""
    way, last = random.choice(
        (("before a checkpoint", whole.first), ("at a file", whole.events), ("at random", 0))
    )
    kind = f"{'loop' if runs.small else 'command'} killed {way}"
    told, kills = [], random.randint(1, MOST)
    for number in range(kills + 1):
        kill: dict[str, Any] = {}
        if number < kills and last:
            after = random.choice((0.0, 0.001, random.uniform(0, 0.05)))
            kill = {"event": random.randrange(last), "seconds": after}
        elif number < kills:
            kill = {"seconds": random.uniform(0, whole.seconds)}
        ended = runs.run(**kill)
        told.append(f"{kill or 'to the end'} -> {ended.code}")
        if ended.code == 0:
            break
        if ended.code != -signal.SIGKILL:
            outcome: Outcome = "hang" if ended.code is None else "foreign"
            return Attempt(kind, outcome, f"{told}: {ended.said[-2000:]}")
    found = result_of(runs.out)
    names = sorted({*whole.result, *found})
    different = [name for name in names if whole.result.get(name) != found.get(name)]
    if different:
        return Attempt(kind, "other", f"{told}: {different}")
    again = runs.run()
    if again.code != 0 or result_of(runs.out) != found:
        return Attempt(kind, "foreign", f"{told}, and once more: {again}")
    return Attempt(kind, "same", str(told))


def result_of(out: Path) -> dict[str, Any]:
    """All files of a finished run, without what is measured. Of checkpoints, only the last one's
    name: one before it may be left that was being deleted."""
    found: dict[str, Any] = {}
    for path in sorted(out.iterdir()):
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[path.name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        elif path.name == "results.json":
            results = json.loads(path.read_text())
            measured = ("seconds", "peak_bytes")
            found[path.name] = {k: v for k, v in results.items() if k not in measured}
        elif path.name == "checkpoints":
            found[path.name] = max(int(x.name) for x in path.iterdir() if x.name.isdigit())
        elif path.is_dir():
            found[path.name] = sorted(x.name for x in path.iterdir())
        else:
            found[path.name] = path.read_bytes()
    return found


CAMPAIGN = Campaign("kills", attempts)
