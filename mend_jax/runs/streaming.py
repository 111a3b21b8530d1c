"""A run that holds only the tail of its base: what that takes, and where it cannot be."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Int, PyTree

from mend_jax.data.trunk_pass import Plan
from mend_jax.data.trunk_stream import plan_stream
from mend_jax.editors.mend import MendOptions
from mend_jax.example import Pair
from mend_jax.models.registry import Base
from mend_jax.models.tail import Parts
from mend_jax.runs.options import ExperimentError, TrainConfig
from mend_jax.runs.room import Room, Shape, parts_to_hold, room_of
from mend_jax.runs.splits import Data

COPIES = 5
"""Of the editor's parameters: themselves, the best so far, a gradient, and Adam's two moments."""


def check_stream(config: TrainConfig) -> None:
    """Refuses options that need the layers below the edited ones.

    Raises:
      ExperimentError: --stream is given, and some of these.
    """
    given = against_stream(config)
    if config.stream and given:
        raise ExperimentError(
            f"--stream: {', '.join(given)} does not go with it. One device runs the layers below "
            "the edited ones once and keeps what they put out; a scope needs all of the base, to "
            "write texts (--no-scope trains an editor alone, `mend-jax scope` gives it one)"
        )


def against_stream(config: TrainConfig) -> list[str]:
    """The options that are given and need the layers below the edited ones."""
    wrong = {
        "--mesh": config.mesh != "1x1", "--distributed": config.distributed,
        "--address": config.address is not None, "--scope": config.scope,
        "--trunk-cache": config.trunk_cache != "memory",
    }  # fmt: skip
    return [option for option, is_given in wrong.items() if is_given]


def parts_of(config: TrainConfig, say: Callable[[str], None]) -> Parts:
    """Of the base, that a training run holds: its tail, if that is wanted or all has no room."""
    if config.stream:
        return "tail"
    if not config.streams or against_stream(config):
        return "all"
    return parts_to_hold(room_to_train(config), say)


def room_to_train(config: TrainConfig) -> Room:
    """Of a training run: the editor, its gradient, its moments and the best so far are beside."""

    def beside(at: list[Shape]) -> float:
        return 4.0 * COPIES * sum(network_sizes(config, at).values())

    return room_of(config.model, config.dtype, config.sites or None, beside)


def network_sizes(config: TrainConfig, shapes: Collection[Shape]) -> dict[Shape, float]:
    """Parameters of MEND's network at kernels of each of these shapes; of other methods nothing is
    known."""
    if config.editor != "mend" or not isinstance(config, MendOptions):
        return {}
    return {s: 2.0 * (2 * sum(s) * min(config.rank, sum(s)) + sum(s)) for s in shapes}


def texts_of(data: Data) -> list[Int[np.ndarray, "_"]]:
    """All that the base is asked in a run."""
    records = [*data.train, *data.dev, *data.validation]
    return [p.tokens for r in records for p in (*r.outer, *r.locality)]


def plan_of(
    base: Base, trunk: nn.Module | None, sequences: Iterable[Int[np.ndarray, "_"]]
) -> Plan:
    """What streaming the trunk takes, for a base of which only a tail was loaded.

    Raises:
      ExperimentError: it is not the tail that follows this trunk.
    """
    if trunk is None or not all(_held(base.params, x) for x in base.model.stages[trunk.stop : -1]):
        raise ExperimentError(
            "--stream: this editor needs layers below those of --sites: leave --stream out, or "
            "choose --sites with these layers"
        )
    return plan_stream(base, trunk, sequences)


def refuse(params: PyTree, pair: Pair) -> Pair:
    """Stands where an editor would run the trunk itself.

    Raises:
      ExperimentError: always.
    """
    raise ExperimentError(
        "--stream: this editor asks the base about other texts while it edits, and needs all of "
        "it: leave --stream out"
    )


def _held(params: Any, stage: str) -> bool:
    """Whether there are parameters of a stage."""
    for name in stage.split("/"):
        params = params.get(name, {})
    return bool(params)
