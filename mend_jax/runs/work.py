"""What an evaluation works on: a loaded editor, records, and the tail of the base."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from mend_jax.data.token_records import TokenRecord
from mend_jax.data.trunk_cache import TrunkCache, cache_trunk
from mend_jax.data.trunk_pass import Plan
from mend_jax.data.trunk_stream import stream_trunk
from mend_jax.models.stages import can_be_cached, split
from mend_jax.objectives import Outputs, outputs_of
from mend_jax.reports.progress import Reporter
from mend_jax.runs.streaming import plan_of, refuse
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
    if base.stored is not None and trunk is not None:
        cache = stream_trunk(base, trunk, stream_of(work), work.reporter.cached)
        return None, outputs._replace(enter=refuse), cache
    if trunk is None or not can_be_cached(trunk):
        return trunk, outputs, None
    cache = cache_trunk(trunk, base.params, asked_in(work), progress=work.reporter.cached)
    return None, outputs, cache


def stream_of(work: Work) -> Plan:
    """What streaming the trunk takes, for a base of which only the tail was loaded."""
    base = work.saved.base
    return plan_of(base, split(base.model, work.saved.sites)[0], asked_in(work))


def asked_in(work: Work) -> list[Int[np.ndarray, "_"]]:
    """All that the base is asked in an evaluation with right answers fed in."""
    sequences = [p.tokens for r in work.records for p in (*r.outer, *r.locality)]
    return sequences + [r.edit.tokens for r in work.beside]
