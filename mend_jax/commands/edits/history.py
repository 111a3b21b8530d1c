"""Tells what happened to a store of edits, event by event: added, removed, restored, replaced.

    mend-jax edits history --store edits.db

`mend-jax edits list --at EVENT` lists what was held after an event.
"""

from dataclasses import dataclass

from mend_jax.commands.command import Command
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input
from mend_jax.reports.terminal import print_rows
from mend_jax.store.ledger import Ledger


@dataclass(frozen=True)
class HistoryOptions:
    """Options of a history."""

    store: Input
    """The file of the store."""
    json: bool = False
    """JSON for programs, in place of a table."""


def history(config: HistoryOptions) -> None:
    """Reads, prints."""
    check_options(config)
    with Ledger(config.store, create=False) as ledger:
        events, edits = ledger.history(), ledger.edits()
    rows = []
    for event in events:
        told = {"event": event.id, "time": event.time, "what": event.kind, "edit": event.edit}
        edit = edits.get(event.edit)  # None: its row is lost
        words = (edit.words.prompt, edit.words.target) if edit else (None, None)
        rows.append({**told, "by": event.by, **dict(zip(("prompt", "target"), words, strict=True))})
    print_rows(rows, ("event", "time", "what", "edit", "by", "prompt", "target"), config.json)


COMMAND = Command(HistoryOptions, history, __doc__)
