"""Stores of edits: writers that are killed, and files that are damaged.

Killed writers: what `store_writers` says is wrong. Damage: every edit that was held is read as it
was, or is named; nobody is held who was not; or the store is refused by one clear error.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import jax

from tests.campaigns.base import Attempt, Campaign, Outcome, judged
from tests.campaigns.mutations import of_bytes

SUPPORT = Path(__file__).parents[1] / "support"
ROUNDS, DAMAGES = 5, 200
"""Of kills, and damages, in turn."""

Read = tuple[dict[int, Any], set[int]]
"""Edits that are held, with their words and arrays; and the numbers of those that are damaged."""


def attempts(folder: Path, random: Random) -> Iterator[Attempt]:
    """Kills and damages, in turn."""
    sys.path[:0] = [str(SUPPORT), str(SUPPORT.parent)]
    path = folder / "edits.db"
    fill(path)
    raw, (wanted, damaged) = path.read_bytes(), read(path)
    assert len(wanted) == 20 and not damaged
    for number in range(1_000_000):
        yield from killed(folder / f"kills {number}", random)
        for _ in range(DAMAGES):
            now = of_bytes(raw, random)
            path.write_bytes(now)
            place = next((i for i, (a, b) in enumerate(zip(raw, now, strict=False)) if a != b), -1)
            what = f"{len(raw)} bytes, now {len(now)}, others from {place} on"
            yield judged("store damaged", lambda: read(path), lambda x: same(x, wanted), what)
            for log in folder.glob("edits.db-*"):
                log.unlink()


def killed(folder: Path, random: Random) -> Iterator[Attempt]:
    """Some rounds of four writers, in processes of their own."""
    folder.mkdir()
    seed = random.randrange(2**32)
    script = str(SUPPORT / "store_writers.py")
    command = [sys.executable, script, str(folder), str(ROUNDS), str(seed)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    rounds = said.stdout.splitlines()
    if len(rounds) < ROUNDS:
        yield Attempt("store writers killed", "other", f"seed {seed}: {said.stderr[-500:]}")
    for line in rounds:
        outcome: Outcome = "other" if ";" in line else "same"
        yield Attempt("store writers killed", outcome, f"seed {seed}: {line}")


def fill(path: Path) -> None:
    """A store of 25 edits, of which 20 are held."""
    from stored_edits import new, origin

    from mend_jax.store.ledger import Ledger

    with Ledger(path) as ledger:
        numbers = ledger.add([new(f"prompt {i}") for i in range(24)], origin())
        ledger.remove(numbers[3:9])
        ledger.restore(numbers[8:9])
        ledger.add([new("prompt 0", "Oslo", (1,)), new("prompt 3")], origin())


def read(path: Path) -> Read:
    """All that is held."""
    from mend_jax.store.ledger import Ledger
    from mend_jax.store.rows import Damaged

    with Ledger(path, create=False) as ledger:
        moment = ledger.at()
        arrays = dict(ledger.arrays(list(moment.edits)))
        ledger.history()
    bad = {number for number, x in arrays.items() if isinstance(x, Damaged)} | set(moment.damaged)
    good = {n: (moment.edits[n], arrays[n]) for n in moment.edits if n in arrays and n not in bad}
    return good, bad


def same(found: Read, wanted: dict[int, Any]) -> bool:
    """Whether each edit is as it was, or named."""
    good, bad = found
    return good.keys() <= wanted.keys() <= good.keys() | bad and all(
        edit == wanted[number][0] and equal(arrays, wanted[number][1])
        for number, (edit, arrays) in good.items()
    )


def equal(a: Any, b: Any) -> bool:
    """Bit by bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.tobytes() == y.tobytes() for x, y in pairs)


CAMPAIGN = Campaign("store", attempts)
