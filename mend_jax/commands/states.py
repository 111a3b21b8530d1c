"""Shows the states that streamed runs have kept on disk, and lets go of them.

    mend-jax states
    mend-jax states --clear
    mend-jax states --clear --base gpt-j-6B --unused 30

A run with --stream keeps what the layers below the edited ones make of its texts, so that the next
run over these texts need not run them again. What is cleared is made anew when it is wanted.
"""

import time
from dataclasses import dataclass

from mend_jax.commands.command import Command
from mend_jax.data.states_kept import Kept, all_kept, let_go_of
from mend_jax.files import cache_folder
from mend_jax.option_checks import check_options
from mend_jax.option_types import Text, Times
from mend_jax.reports.terminal import print_rows

DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class StatesOptions:
    """Options of what is shown, or cleared."""

    base: Text | None = None
    """Only those of bases with this in their name."""
    unused: Times = 0
    """Only those that no run has made or taken for so many days (0: whenever it was)."""
    clear: bool = False
    """Delete them. What a run is making at the moment stays."""
    json: bool = False
    """JSON for programs, in place of a table."""


def states(config: StatesOptions) -> None:
    """Looks, prints, and deletes if asked to."""
    check_options(config)
    now = time.time()
    found = [
        one
        for one in all_kept()
        if (config.base or "") in one.base and now - one.used >= config.unused * DAY
    ]
    gone = {one.stem: config.clear and let_go_of(one) for one in found}
    cleared = [{"cleared": gone[one.stem]} if config.clear else {} for one in found]
    rows = [row_of(one, now) | more for one, more in zip(found, cleared, strict=True)]
    columns = ("base", "layers", "dtypes", "texts", "MB", "days unused")
    print_rows(rows, (*columns, "cleared") if config.clear else columns, config.json)
    if not config.json:
        told = [one for one in found if gone[one.stem]] if config.clear else found
        size = sum(one.bytes for one in told) / 1e6
        what = "cleared" if config.clear else "kept"
        print(f"{len(told)} {what}, {size:,.1f} MB, in {cache_folder() / 'trunk'}")


def row_of(kept: Kept, now: float) -> dict[str, object]:
    """As it is shown."""
    return {
        "base": kept.base or "unknown", "layers": kept.stages, "dtypes": "+".join(kept.dtypes),
        "texts": kept.texts or "unfinished", "MB": round(kept.bytes / 1e6, 1),
        "days unused": round(max(0.0, now - kept.used) / DAY, 1),
    }  # fmt: skip


COMMAND = Command(StatesOptions, states, __doc__)
