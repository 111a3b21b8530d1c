"""Removes edits from what a store holds. They stay in its history, and can be restored.

    mend-jax edits remove 3 7 --store edits.db
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from mend_jax.commands.command import Command
from mend_jax.option_checks import check_options
from mend_jax.option_types import Input, Number
from mend_jax.store.ledger import Ledger


@dataclass(frozen=True)
class RemoveOptions:
    """Options of a removal."""

    numbers: Annotated[tuple[Number, ...], tyro.conf.Positional]
    """Numbers of the edits; all of them, or none, are removed."""
    store: Input
    """The file of the store."""


def remove(config: RemoveOptions) -> None:
    """Removes, says what."""
    check_options(config)
    if not config.numbers:
        raise ValueError("no edits given: name their numbers (mend-jax edits list)")
    with Ledger(config.store, create=False) as ledger:
        ledger.remove(config.numbers)
        for edit in ledger.edits(config.numbers).values():
            print(f"removed {edit.id}: {edit.words.prompt} -> {edit.words.target}")


COMMAND = Command(RemoveOptions, remove, __doc__)
