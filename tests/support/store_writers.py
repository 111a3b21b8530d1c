"""Rounds of four processes that write to one store at once, each killed at a random moment.

    python tests/support/store_writers.py FOLDER ROUNDS SEED

Each adds batches of edits and sometimes removes one, and notes what it was told is done. After a
round, everything that was noted has to be there, whole, and nothing twice; a fifth process reads
all the while, and must never see a part of a batch. Prints a line a round, and exits 1 if one
breaks the law.
"""

import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from compare import assert_equal
from stored_edits import kept, new, origin

from mend_jax.store.database import StoreError
from mend_jax.store.ledger import Ledger
from mend_jax.store.rows import Event

WRITERS, BATCH = 4, 3
MOST = 12
"""Changes after which a writer is killed, at most, a moment later."""
LIMIT = 60.0
"""Seconds after which it is killed anyway."""


def prompts(writer: str, i: int) -> list[str]:
    """Of a writer's batch i."""
    return [f"{writer} {i} {j}" for j in range(BATCH)]


def write(path: Path, log: Path, writer: str) -> None:
    """Adds batches without end; of every third, it removes the first edit again."""
    with patient(partial(Ledger, path)) as ledger, log.open("wb", buffering=0) as noted:
        i = 0
        while True:
            edits = [new(prompt) for prompt in prompts(writer, i)]
            numbers = patient(partial(ledger.add, edits, origin()))
            noted.write(f"added {i}\n".encode())
            if i % 3 == 0:
                patient(partial(ledger.remove, numbers[:1]))
                noted.write(f"removed {i}\n".encode())
            i += 1


def patient(change: Callable[[], Any]) -> Any:
    """Tries again as long as the others leave no gap: on a busy machine they may."""
    while True:
        try:
            return change()
        except StoreError as error:
            if "others have been writing" not in str(error):
                raise


def read(path: Path, log: Path) -> None:
    """Looks without end, and notes what it must not see."""
    with patient(partial(Ledger, path)) as ledger, log.open("wb", buffering=0) as noted:
        while True:
            edits = ledger.edits()
            events = [e for e in ledger.history() if e.kind == "added" and e.edit in edits]
            batches = Counter(edits[e.edit].words.prompt.rpartition(" ")[0] for e in events)
            if any(n != BATCH for n in batches.values()):
                noted.write(f"a part of a batch: {batches}\n".encode())


def play(folder: Path, number: int, random: Random) -> tuple[int, list[str]]:
    """One round: how much was acknowledged, and what is wrong."""
    path = folder / f"{number // 5}.db"  # made by all of them at once, and used again
    logs = [folder / f"{number} {i}.log" for i in range(WRITERS + 1)]
    children = []
    for i, log in enumerate(logs):
        child = os.fork()
        if not child:
            try:
                write(path, log, f"{number}.{i}") if i < WRITERS else read(path, log)
            except BaseException as error:
                log.with_suffix(".failed").write_text(f"{type(error).__name__}: {error}")
            os._exit(1)
        children.append(child)
    *writers, reader = children
    threads = [
        threading.Thread(
            target=kill, args=(child, log, random.randint(0, MOST), random.expovariate(50))
        )
        for child, log in zip(writers, logs, strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.kill(reader, signal.SIGKILL)
    os.waitpid(reader, 0)
    wrong = [f"{x.name}: {x.read_text()}" for x in folder.glob(f"{number} *.failed")]
    return judged(path, number, logs, wrong)


def kill(child: int, log: Path, done: int, later: float) -> None:
    """Kills a writer so many seconds after so many of its changes were acknowledged."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and _lines(log) < done:
        time.sleep(0.001)
    time.sleep(later)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def judged(path: Path, number: int, logs: list[Path], wrong: list[str]) -> tuple[int, list[str]]:
    """Every writer's notes against the store; the reader's notes are wrong in themselves."""
    *written, seen = [log.read_text() if log.exists() else "" for log in logs]
    wrong += seen.splitlines()
    with Ledger(path) as ledger:
        with ledger._database.reading() as connection:
            checked = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
        moment, edits, events = ledger.at(), ledger.edits(), ledger.history()
        found = Counter(edit.words.prompt for edit in edits.values())
        held = {edit.words.prompt for edit in moment.edits.values()}
        for i, log in enumerate(written):
            wrong += judged_writer(f"{number}.{i}", log, found, held)
        for one, arrays in ledger.arrays(list(edits)):
            try:
                assert_equal(arrays, kept(edits[one].words.prompt))
            except AssertionError:
                wrong.append(f"edit {one} is not whole")
    if checked != "ok" or moment.damaged:
        wrong.append(f"the file: {checked}; damaged: {moment.damaged}")
    return sum(log.count("\n") for log in written), wrong + judged_events(events, set(edits))


def judged_writer(writer: str, log: str, found: Counter[str], held: set[str]) -> list[str]:
    """One writer's acknowledged changes are there; of the one after them, all or nothing."""
    wrong = []
    done = [line.split() for line in log.splitlines()]
    added = {int(i) for what, i in done if what == "added"}
    removed = {int(i) for what, i in done if what == "removed"}
    for i in range(len(added) + 2):
        counts = [found[prompt] for prompt in prompts(writer, i)]
        if counts != [1] * BATCH and (i in added or any(counts)):
            wrong.append(f"batch {i} of {writer}: {counts}")
        if i in removed and prompts(writer, i)[0] in held:
            wrong.append(f"of batch {i} of {writer}, the first was removed, and is held")
        if i in added and not held.issuperset(prompts(writer, i)[1:]):
            wrong.append(f"of batch {i} of {writer}, not all are held")
    return wrong


def judged_events(events: list[Event], edits: set[int]) -> list[str]:
    """One event has added each edit."""
    counts = Counter(event.edit for event in events if event.kind == "added")
    good = set(counts) == edits and set(counts.values()) <= {1}
    return [] if good else [f"not one event for each edit: {counts}"]


def main(folder: Path, rounds: int, seed: int) -> int:
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    random, bad = Random(seed), 0
    for number in range(rounds):
        acknowledged, wrong = play(folder, number, random)
        print(f"round {number}: {acknowledged} acknowledged", *wrong, sep="; ", flush=True)
        bad += bool(wrong)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
