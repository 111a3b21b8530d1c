"""What an evaluation works on: a loaded editor, records, and the tail of the base."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
from jax.sharding import Mesh

from mend_jax.data.batches import TokenRecord
from mend_jax.data.trunk_cache import TrunkCache, cache_trunk
from mend_jax.models.stages import can_be_cached, split
from mend_jax.objectives import Outputs, outputs_of
from mend_jax.reports.progress import Reporter
from mend_jax.saved.directory import SavedEditor


class Work(NamedTuple):
    """A loaded editor, and the records to score it on.

    beside: records whose edits are held beside every group of these, and are not scored.
    """

    saved: SavedEditor
    records: list[TokenRecord]
    mesh: Mesh | None
    reporter: Reporter
    seed: int = 0
    beside: Sequence[TokenRecord] = ()


def tail_of(
    work: Work, alone: bool = False
) -> tuple[nn.Module | None, Outputs, TrunkCache | None]:
    """(trunk to run on every example, outputs of the tail, cached outputs of the trunk); one of the
    outer two. `alone`: neither, and outputs of the whole base."""
    base = work.saved.base
    if alone:
        return None, outputs_of(base.model), None
    trunk, tail = split(base.model, work.saved.sites)
    outputs = outputs_of(tail, trunk)
    if trunk is None or not can_be_cached(trunk):
        return trunk, outputs, None
    sequences = [p.tokens for r in work.records for p in (*r.outer, *r.locality)]
    sequences += [r.edit.tokens for r in work.beside]
    cache = cache_trunk(trunk, base.params, sequences, progress=work.reporter.cached)
    return None, outputs, cache
