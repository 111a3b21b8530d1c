"""Lists the edits that a store holds, or held after an event of its history.

    mend-jax edits list --store edits.db
    mend-jax edits list --store edits.db --at 12 --json
"""

import sys
from dataclasses import dataclass

from mend_jax.commands.command import Command
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, Times
from mend_jax.reports.terminal import print_rows
from mend_jax.store.ledger import Ledger


@dataclass(frozen=True)
class ListOptions:
    """Options of a list."""

    store: Input
    """The file of the store."""
    at: Times | None = None
    """What was held after this event of the history (0: before the first); by default now."""
    json: bool = False
    """JSON for programs, in place of a table."""


def list_edits(config: ListOptions) -> None:
    """Reads, prints."""
    check_options(config)
    with Ledger(config.store, create=False) as ledger:
        moment = ledger.at(config.at)
    rows = [
        {
            "edit": edit.id, "time": edit.time, **edit.words._asdict(),
            "base": edit.base, "editor": edit.editor,
        }
        for edit in moment.edits.values()
    ]  # fmt: skip
    print_rows(rows, ("edit", "time", "prompt", "target", "subject", "note"), config.json)
    if not config.json:
        print(f"{len(rows)} edits after event {moment.event}")
    for number in moment.damaged:
        print(f"edit {number}: its row is lost, or does not agree with its events", file=sys.stderr)


COMMAND = Command(ListOptions, list_edits, __doc__)
