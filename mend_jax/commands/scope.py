"""Gives a trained editor a scope: many edits are held, and each is felt only where it belongs.

    mend-jax scope --editor runs/mine --out runs/scoped
    mend-jax evaluate --editor runs/scoped --k 500 --out runs/held

The editor stays as it is. The scope is a small network that learns from records which texts ask for
which edit; it has to hold for subjects that it never saw, so give it many. For causal models.
"""

import time
from dataclasses import dataclass

from mend_jax.commands.command import Command
from mend_jax.data.sources.registry import read_noted
from mend_jax.option_checks import check_options
from mend_jax.option_types import Batch, Input, OutFolder, Share, Steps, Times
from mend_jax.runs.opening import EditorPlace, TrustOptions
from mend_jax.runs.option_groups import Length, ReadingOptions
from mend_jax.runs.scoping import ScopeTraining, add_scope, parted
from mend_jax.runs.splits import own_records, reading_of
from mend_jax.saved.directory import load_editor, save_editor
from mend_jax.training.thresholds import LEAKS


@dataclass(frozen=True, kw_only=True)
class ScopeOptions(TrustOptions, ReadingOptions):
    """Options of a scope's training."""

    editor: EditorPlace
    """Directory of a trained editor, or its name on the hub (user/name[@revision])."""
    out: OutFolder
    """Directory for the same editor with its scope; must be empty or absent."""
    train: Input | None = None
    """Records to learn from, with rephrases and neighbours; without it, the project's facts. The
    thresholds are set on a tenth of them."""
    max_train: Times = 2500
    """Use only so many of them (0: all)."""
    steps: Steps = 300
    """Training steps."""
    batch: Batch = 160
    """Records of a step, whose edits are held beside each other."""
    longest: Length = 32
    """Longest text in tokens; longer ones are left out and counted."""
    leaks: Share = LEAKS
    """Share of the neighbours, and of other questions about the subject, that an edit may be felt
    in: the more, the more of its rephrases it is felt in."""


def scope(config: ScopeOptions) -> None:
    """Loads, trains, saves."""
    check_options(config)
    if config.out.exists() and any(config.out.iterdir()):
        raise ValueError(f"{config.out} is not empty: give another --out")
    reading = reading_of(config, "train")
    given = config.train and read_noted(config.train, reading)  # broken files first
    saved = load_editor(config.editor, trust=config.trust, force=config.force)
    records = given.records if given else own_records(saved.base, reading)[0]
    for note in given.notes if given else []:
        print(f"{config.train}: {note}")
    began = time.perf_counter()
    training = ScopeTraining(
        config.steps, config.batch, config.longest, config.seed, config.leaks
    )
    scoped = add_scope(saved, parted(records[: config.max_train or None], config.seed), training)
    told = {"train": str(config.train) if config.train else None, **training._asdict()}
    how = saved.config["training"] | {"scope": told}
    save_editor(config.out, scoped.editor, scoped.state, scoped.base, scoped.sites, how)
    print(f"{time.perf_counter() - began:.0f} s; written to {config.out}")


COMMAND = Command(ScopeOptions, scope, __doc__)
