"""What editors are trained and scored on: a base cut at its sites, records, devices, budgets.

What happens here is the same for every editing method.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Mesh

from mend_jax.data.batches import collate, shapes_of
from mend_jax.data.encoding import marks_around
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.training_batches import Draw, From, in_turn, parts_of, training_batches
from mend_jax.data.trunk_cache import TrunkCache, cache_trunk
from mend_jax.data.trunk_pass import Passed
from mend_jax.data.trunk_stream import stream_trunk
from mend_jax.data.writable import encode_piece
from mend_jax.editors.method import Ground
from mend_jax.example import Example, Pair
from mend_jax.models.registry import Base
from mend_jax.models.stages import can_be_cached, split
from mend_jax.objectives import Outputs, after_trunk, outputs_of
from mend_jax.parallel import shard_examples
from mend_jax.reports.progress import Reporter
from mend_jax.runs.options import ExperimentError, TrainConfig
from mend_jax.runs.splits import Data
from mend_jax.runs.streaming import plan_of, refuse, texts_of

LOCALITIES = 100
"""Locality pairs of training records that a method may walk through."""


class Task(NamedTuple):
    """Everything but the editor.

    trunk: to be run on every example; None if its outputs are in the cache, or there is none.
    outputs: of the tail. streamed: how the trunk was run out of its files, if it was.
    """

    config: TrainConfig
    base: Base
    sites: tuple[str, ...]
    data: Data
    trunk: nn.Module | None
    outputs: Outputs
    cache: TrunkCache | None
    mesh: Mesh | None
    streamed: Passed | None = None

    @property
    def side_by_side(self) -> int:
        """Edits that are scored at a time."""
        return max(1, 8 // self.config.k)


def make_task(
    config: TrainConfig,
    base: Base,
    sites: tuple[str, ...],
    data: Data,
    mesh: Mesh | None,
    reporter: Reporter,
) -> Task:
    """Splits the base at the sites and, if asked to, caches the trunk's outputs.

    Raises:
      ExperimentError: of the base, there is another tail. CacheError: there is no room on the disk.
    """
    trunk, tail = split(base.model, sites)
    outputs = outputs_of(tail, trunk)
    cache = None
    if base.stored is not None:
        plan = plan_of(base, trunk, texts_of(data))
        assert trunk is not None
        passes: list[Passed] = []
        cache = stream_trunk(base, trunk, plan, reporter.cached, passes.append)
        task = Task(config, base, sites, data, None, outputs._replace(enter=refuse), cache, mesh)
        return task._replace(streamed=passes[0] if passes else None)
    if trunk is not None and can_be_cached(trunk) and config.trunk_cache != "off":
        directory = config.out / "trunk" if config.trunk_cache == "disk" else None
        cache = cache_trunk(trunk, base.params, texts_of(data), directory, reporter.cached)
        trunk = None
    return Task(config, base, sites, data, trunk, outputs, cache, mesh)


def cut_at(task: Task, sites: tuple[str, ...]) -> Task:
    """The task for a method that edits elsewhere. If that is above the cut, the cut stays; below, a
    trunk is run on every example: what is cached are the outputs of another."""
    trunk, tail = split(task.base.model, sites)
    cut, _ = split(task.base.model, task.sites)
    if cut is None or (trunk is not None and trunk.stop >= cut.stop):
        return task._replace(sites=sites)
    if task.base.stored is not None:
        raise ExperimentError("--stream: this editor edits elsewhere: leave --stream out for it")
    return task._replace(sites=sites, trunk=trunk, outputs=outputs_of(tail, trunk), cache=None)


def batches_of(task: Task, start: int, seed: int, **drawn: Any) -> Iterator[Example]:
    """Training batches from step `start` on, on the task's devices."""
    config, data, mesh = task.config, task.data, task.mesh
    draw = Draw(config.batch, config.outer, config.near, config.far, config.swap, config.k)
    draw = draw._replace(**drawn)

    def of(part: Sequence[TokenRecord], shaped: Sequence[TokenRecord]) -> From:
        shapes = shapes_of(shaped, config.swap)
        if jax.default_backend() != "cpu":  # to read all kernels again takes longer than padding
            shapes = shapes.alike
        return lambda first: training_batches(part, shapes, draw, seed, first, task.cache)

    parts = parts_of(data.train)
    if parts is None:
        made = of(data.train, [*data.train, *data.dev])(start)
    else:
        short, long, share = parts
        made = in_turn(of(short, short), of(long, long), share, start)
    return made if mesh is None else (shard_examples(x, mesh) for x in made)


def example_of(task: Task) -> Example:
    """Shapes of one training example, as the editor gets it."""
    first = next(batches_of(task._replace(mesh=None), 0, task.config.seed))
    shapes: Example = jax.eval_shape(
        lambda params, x: jax.tree.map(lambda x: x[0], after_trunk(task.trunk, params, x)),
        task.base.params, first,
    )  # fmt: skip
    return shapes


def ground_of(task: Task) -> Ground:
    """What a method may look at before it is made."""
    tokenizer = task.base.tokenizer
    return Ground(
        task.outputs, task.base.params, example_of(task), lambda: _localities(task),
        partial(encode_piece, tokenizer), partial(marks_around, tokenizer),
    )  # fmt: skip


def _localities(task: Task) -> Pair:
    """Locality pairs of training records, tokens [n, 1, ...].

    Raises:
      ExperimentError: the training records have none.
    """
    records = task.data.train
    pairs = [pair for record in records for pair in record.locality][:LOCALITIES]
    if not pairs:
        raise ExperimentError("FT+KL needs locality pairs, and the training records have none")
    return collate([[pair] for pair in pairs], shapes_of(records).locality)
