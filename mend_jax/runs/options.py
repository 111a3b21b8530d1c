"""The options of a training run, and the checks on them before any work is done."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from mend_jax.editors.mend import MendOptions
from mend_jax.editors.registry import method_of
from mend_jax.option_checks import check_options
from mend_jax.option_types import OutFolder, accepted_by
from mend_jax.runs.option_groups import (
    WITH_SCOPE,
    BaseOptions,
    DeviceOptions,
    DrawOptions,
    LoopOptions,
    ReadingOptions,
    RecordOptions,
    ScopeOptions,
)

EditorName = Annotated[str, accepted_by(method_of)]


class ExperimentError(ValueError):
    """Options that do not fit together, or files that are not there; says what to do."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    BaseOptions,
    RecordOptions,
    ReadingOptions,
    MendOptions,
    DrawOptions,
    ScopeOptions,
    LoopOptions,
    DeviceOptions,
):
    """Options of a training run, by who obeys them; each part of a run asks for its own group."""

    out: OutFolder
    """Directory for the editor, results.json, figures and checkpoints; must be empty or absent."""
    editor: EditorName = "mend"
    """The editing method: a name (as in --editors of `mend-jax compare`), or the import path of
    your own (package.module:name). It is trained with rates of its own, unless others are given."""
    protocol: Literal["sequence", "token"] = "sequence"
    """Of all scores: every token of an answer right, or the share of them that is."""

    brings: ClassVar[dict[str, dict[str, Any]]] = {"scope": WITH_SCOPE}
    """Defaults that a switch brings with it on a command line where it is turned the other way."""

    anything_knows_facts: ClassVar[bool] = True
    """Without --train, edit the project's facts in any base; else only in one that learned them."""

    streams: ClassVar[bool] = True
    """Whether its base may be held without the layers below the edited ones."""

    holds_together: ClassVar[bool] = False
    """With --scope, edits are made alone, and --k of them are held together while they are
    scored."""


@dataclass(frozen=True, kw_only=True)
class ScopedConfig(TrainConfig):
    """As `TrainConfig`, with a scope unless it is turned off, which brings what an editor alone is
    trained with."""

    scope: bool = True
    ridge: float = WITH_SCOPE["ridge"]
    alpha: float = WITH_SCOPE["alpha"]
    alpha_learning_rate: float = WITH_SCOPE["alpha_learning_rate"]
    near: int = WITH_SCOPE["near"]
    far: int = WITH_SCOPE["far"]

    brings: ClassVar[dict[str, dict[str, Any]]] = {
        "scope": {name: getattr(TrainConfig, name) for name in WITH_SCOPE}
    }


@dataclass(frozen=True, kw_only=True)
class PaperConfig(TrainConfig):
    """The paper's options, the same for all its models (section 4 and appendix C.3).

    The authors count single edits: 500,000 at most, a look at 500 records every 5,000, and a stop
    20,000 after the best; ten of theirs are one step here.
    """

    flip: Literal["all", "half"] = "half"
    dev: int = 500
    steps: int = 50_000
    rank: int = 1920
    learning_rate: float = 1e-6
    decay: Literal["cosine", "none"] = "none"
    ridge: float = 1.0
    calibrate: int = 1
    alpha: float = 1e-4
    alpha_learning_rate: float = 1e-4
    c_edit: float = 0.1
    swap: bool = False
    longest: int = 32
    longest_answer: int = 32
    evaluate_every: int = 500
    checkpoint_every: int = 500
    patience: int = 2000

    anything_knows_facts: ClassVar[bool] = False


def check_config(config: TrainConfig) -> None:
    """Refuses options whose values are not allowed, or that do not go together.

    Raises:
      OptionError: a value is not allowed. ExperimentError: two do not go together.
    """
    check_options(config)
    if config.words and config.ridge >= 1:
        raise ExperimentError("--words needs a --ridge below 1, in whose coordinates it works")
    at_once = (config.k > 1 and not config.holds_together) or config.at_once != "joint"
    if config.scope and (at_once or config.mesh != "1x1"):
        raise ExperimentError(
            "--scope: each of its edits is made alone, on one device: --k, --at-once and --mesh do "
            "not go with it; --no-scope trains an editor alone"
        )
    if config.scope_of and not config.scope:
        raise ExperimentError("--scope-of is an editor's whose scope is taken: say --scope, too")
    cluster = (config.address, config.processes, config.process_id)
    if cluster != (None, None, None):
        if config.address is None or config.processes is None or config.process_id is None:
            raise ExperimentError("--address, --processes and --process-id go together: give all")
        if config.process_id >= config.processes:
            raise ExperimentError(
                f"--process-id {config.process_id}: processes are numbered from 0, and there are "
                f"{config.processes}"
            )


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The options as they stand in run.json and results.json."""
    values = dataclasses.asdict(config)
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
