"""Shows edits of a store: their words, what they change, and what happened to them.

    mend-jax edits show 3 --store edits.db
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mend_jax.commands.command import Command
from mend_jax.editors.scoped import ScopedEdit
from mend_jax.factors import in_float32, norm
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, Number
from mend_jax.store.database import StoreError
from mend_jax.store.ledger import Ledger
from mend_jax.store.rows import Damaged, StoredEdit


@dataclass(frozen=True)
class ShowOptions:
    """Options of what is shown."""

    numbers: Annotated[tuple[Number, ...], tyro.conf.Positional]
    """Numbers of the edits, held or not."""
    store: Input
    """The file of the store."""


def show(config: ShowOptions) -> None:
    """Reads, prints."""
    check_options(config)
    if not config.numbers:
        raise ValueError("no edits given: name their numbers (mend-jax edits list)")
    with Ledger(config.store, create=False) as ledger:
        edits = ledger.edits(config.numbers)
        if missing := [number for number in config.numbers if number not in edits]:
            raise StoreError(f"{config.store}: there is no edit {missing[0]}")
        events = [event for event in ledger.history() if event.edit in edits]
        for number, kept in ledger.arrays(list(edits)):
            print_edit(edits[number], kept)
            for event in events:
                if event.edit == number:
                    by = f" by {event.by}" if event.by else ""
                    print(f"  event {event.id}: {event.kind}{by}, {event.time}")


def print_edit(edit: StoredEdit, kept: ScopedEdit | Damaged) -> None:
    """Words, origin, and the size of what is changed."""
    print(f"{edit.id}: {edit.words.prompt} -> {edit.words.target}")
    for name in ("subject", "separator", "note"):
        if said := getattr(edit.words, name):
            print(f"  {name}: {said!r}")
    print(f"  made on the base {edit.base} by the editor {edit.editor}")
    if isinstance(kept, Damaged):
        print(f"  damaged: {kept.why}")
        return
    for site, part in in_float32(kept.rows).items():
        print(f"  {site}: {len(part.u)} rows, norm {float(norm(part)):.3g}")


COMMAND = Command(ShowOptions, show, __doc__)
