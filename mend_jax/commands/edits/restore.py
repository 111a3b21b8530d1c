"""Brings back edits that were removed or have given way to others, bit for bit.

    mend-jax edits restore 3 --store edits.db
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mend_jax.commands.command import Command
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, Number
from mend_jax.store.ledger import Ledger


@dataclass(frozen=True)
class RestoreOptions:
    """Options of a restoration."""

    numbers: Annotated[tuple[Number, ...], tyro.conf.Positional]
    """Numbers of the edits; all of them, or none, are brought back."""
    store: Input
    """The file of the store."""


def restore(config: RestoreOptions) -> None:
    """Restores, says what."""
    check_options(config)
    if not config.numbers:
        raise ValueError("no edits given: name their numbers (mend-jax edits history)")
    with Ledger(config.store, create=False) as ledger:
        ledger.restore(config.numbers)
        for edit in ledger.edits(config.numbers).values():
            print(f"restored {edit.id}: {edit.words.prompt} -> {edit.words.target}")


COMMAND = Command(RestoreOptions, restore, __doc__)
