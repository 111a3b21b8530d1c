"""Runs the campaigns, each for its share of the time, and prints a table of what was tried."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.campaigns import damage, fuzz, kills, store
from tests.campaigns.base import LAWFUL, Attempt, Campaign

CAMPAIGNS: tuple[Campaign, ...] = (
    damage.CAMPAIGN,
    fuzz.CAMPAIGN,
    kills.CAMPAIGN,
    store.CAMPAIGN,
)


def run(campaign: Campaign, seconds: float, seed: int) -> list[Attempt]:
    """At least one attempt, and as many more as begin in time."""
    tried, end = [], time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for attempt in campaign.attempts(Path(folder), Random(f"{campaign.name} {seed}")):
            tried.append(attempt)
            if time.monotonic() >= end:
                return tried
    return tried


def table(name: str, tried: list[Attempt]) -> str:
    """One row for each kind of attempt."""
    rows = []
    for kind in dict.fromkeys(attempt.kind for attempt in tried):
        counts = Counter(attempt.outcome for attempt in tried if attempt.kind == kind)
        rest = sum(n for outcome, n in counts.items() if outcome not in LAWFUL)
        told = f"{counts['same']:6} same  {counts['error']:6} one error  {rest:6} against the law"
        rows.append(f"{name:12} {kind:32} {sum(counts.values()):6} tried  {told}")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """0 if every attempt kept the law, else 1; those that did not are printed."""
    parser = argparse.ArgumentParser("python -m tests.campaigns", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="for all campaigns together")
    parser.add_argument("--seed", type=int, default=0)
    names = [campaign.name for campaign in CAMPAIGNS]
    parser.add_argument("--only", choices=names, help="one campaign, with all of the time")
    options = parser.parse_args(arguments)
    chosen = [c for c in CAMPAIGNS if options.only in (None, c.name)]
    broken = []
    for campaign in chosen:
        tried = run(campaign, 60 * options.minutes / len(chosen), options.seed)
        print(table(campaign.name, tried), flush=True)
        broken += [attempt for attempt in tried if attempt.outcome not in LAWFUL]
    for attempt in broken:
        print(f"{attempt.outcome}: {attempt.kind}: {attempt.detail}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
