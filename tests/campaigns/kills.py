"""Training runs that are killed, and given again by the same command line until they end.

However often and wherever SIGKILL came: the same editor, results and rows, bit for bit, but for the
seconds in them; and no way in which the command would not go on.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.campaigns.base import Attempt, Campaign, Outcome

SUPPORT = Path(__file__).parents[1] / "support"
CHECKPOINT = "os.rename /checkpoints/"
MOST = 4
"""Kills of one run."""


class Ended(NamedTuple):
    """A run: its exit code (None: it hung), what it printed, and its file events."""

    code: int | None
    said: str
    events: list[str]


class Runs:
    """Runs of one command line, each in a process of its own. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        sys.path[:0] = [str(SUPPORT), str(SUPPORT.parent)]
        from tiny_run import ROOT, python_environment, save_folder, some_records

        from mend_jax.data.records import write_records

        self.out, self.log = folder / "out", folder / "log"
        write_records(folder / "train.jsonl", some_records(0, 16))
        write_records(folder / "validation.jsonl", some_records(14, 6))
        save_folder(folder / "model")
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
        self.nursery = subprocess.Popen(
            [sys.executable, str(SUPPORT / "nursery.py")], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, *_: object) -> None:
        self.nursery.kill()
        self.nursery.communicate()

    def run(self, **kill: Any) -> Ended:
        """Once, killed as `nursery.Request` says."""
        asked = {"argv": self.argv, "watched": str(self.out), "log": str(self.log), **kill}
        events = self.log.with_name(f"{self.log.name}.events")
        events.unlink(missing_ok=True)
        assert self.nursery.stdin is not None and self.nursery.stdout is not None
        self.nursery.stdin.write(json.dumps(asked) + "\n")
        self.nursery.stdin.flush()
        code = json.loads(self.nursery.stdout.readline())["code"]
        found = json.loads(events.read_text()) if events.exists() else []
        return Ended(code, self.log.read_text(errors="replace"), found)


OPTIONS = (
    "--dev", "3", "--steps", "8", "--batch", "2", "--rank", "4", "--calibrate", "2",
    "--learning-rate", "1e-3", "--sites", "layers_1/mlp/down_proj", "--longest", "24",
    "--log-every", "1", "--evaluate-every", "4", "--checkpoint-every", "3",
)  # fmt: skip


def attempts(folder: Path, random: Random) -> Iterator[Attempt]:
    """One run an attempt."""
    with Runs(folder) as runs:
        runs.run()  # compiles
        shutil.rmtree(runs.out)
        began = runs.run()
        if began.code != 0:
            raise RuntimeError(f"undisturbed, it ends with {began.code}: {began.said}")
        whole, events = result_of(runs.out), began.events
        first = next(i for i, event in enumerate(events) if event.startswith(CHECKPOINT))
        while True:
            for kind, last in (
                ("killed before a checkpoint", first),
                ("killed while a file is written", len(events)),
                ("killed at random", 0),
            ):
                shutil.rmtree(runs.out, ignore_errors=True)
                yield _attempt(kind, last, runs, whole, random)


def _attempt(
    kind: str, last: int, runs: Runs, whole: dict[str, Any], random: Random
) -> Attempt:
    """One run, killed up to `MOST` times: at a file event before `last`, or at any time."""
    told, kills = [], random.randint(1, MOST)
    for number in range(kills + 1):
        kill: dict[str, Any] = {}
        if number < kills and last:
            kill = {
                "event": random.randrange(last),
                "seconds": random.choice((0.0, 0.001, random.uniform(0, 0.05))),
            }
        elif number < kills:
            kill = {"seconds": random.uniform(0, 4)}
        ended = runs.run(**kill)
        told.append(f"{kill or 'to the end'} -> {ended.code}")
        if ended.code == 0:
            break
        if ended.code != -signal.SIGKILL:
            outcome: Outcome = "hang" if ended.code is None else "foreign"
            return Attempt(kind, outcome, f"{told}: {ended.said[-2000:]}")
    found = result_of(runs.out)
    different = [name for name in {*whole, *found} if whole.get(name) != found.get(name)]
    if different:
        return Attempt(kind, "other", f"{told}: {sorted(different)}")
    again = runs.run()
    if again.code != 0 or again.events and any("checkpoints" in x for x in again.events):
        return Attempt(kind, "foreign", f"{told}, and once more: {again}")
    return Attempt(kind, "same", str(told))


def result_of(out: Path) -> dict[str, Any]:
    """All files of a finished run, without seconds and the checkpoints' own."""
    found: dict[str, Any] = {}
    for path in sorted(out.iterdir()):
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[path.name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        elif path.name == "results.json":
            results = json.loads(path.read_text())
            found[path.name] = {k: v for k, v in results.items() if k != "seconds"}
        elif path.is_dir():
            found[path.name] = sorted(x.name for x in path.iterdir())
        else:
            found[path.name] = path.read_bytes()
    return found


CAMPAIGN = Campaign("kills", attempts)
