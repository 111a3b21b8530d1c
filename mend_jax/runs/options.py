"""The options of a training run, and the checks on them before any work is done."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from mend_jax.data.batches import ANSWERS, LENGTHS
from mend_jax.editors.mend import MendOptions
from mend_jax.editors.method import AtOnce
from mend_jax.editors.registry import method_of
from mend_jax.models.memory import Dtype
from mend_jax.option_types import (
    Address,
    Batch,
    Few,
    Input,
    Mesh,
    Model,
    OutFolder,
    Rate,
    Seed,
    Share,
    SiteNames,
    Some,
    Steps,
    Times,
    Weight,
    accepted_by,
    between,
    check_options,
)
from mend_jax.runs.opening import EditorPlace
from mend_jax.training.thresholds import LEAKS

Length = Annotated[int, between(1, LENGTHS[-1])]
"""Tokens of a sequence: batches have shapes of a table, which ends there."""
AnswerLength = Annotated[int, between(1, ANSWERS[-1])]
EditorName = Annotated[str, accepted_by(method_of)]


class ExperimentError(ValueError):
    """Options that do not fit together, or files that are not there; says what to do."""


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """What published files leave open, and the seed."""

    flip: Literal["all", "half"] = "all"
    """Edits of FEVER files: all flip the verdict; or half do, as in the paper, and half keep what
    the model says already."""
    locality: Input | None = None
    """File of Natural Questions, whose answers must stay; takes the place of the locality that the
    records have. Its questions are dealt: 85 % to training, 15 % to the score."""
    localities: Few = 4
    """Locality pairs of a record, drawn from --locality, or from other rows of a file that leaves
    the choice (FEVER, Wikitext generation, zsRE lines); 0: none."""
    questions: Literal["sentence", "exact"] = "sentence"
    """Questions of --locality: with a capital and a question mark, or exactly as in the file."""
    seed: Seed = 0
    """Seeds everything that is random."""


@dataclass(frozen=True, kw_only=True)
class BaseOptions:
    """The base that is edited."""

    model: Model = "smollm2-135m"
    """Base model: smollm2-135m, a GGUF file, a Hugging Face folder or a hub id."""
    dtype: Dtype = "float32"
    """Of the base's weights; the editor and its edits are always float32."""
    sites: SiteNames = ""
    """Regular expression of the edited layers; empty: the default of the model family."""


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """What it is trained and scored on."""

    train: Input | None = None
    """Training records: your own JSONL, or a published file (CounterFact, zsRE, FEVER, ...: all
    of mend_jax/data/sources); without it, the project's facts."""
    records: Input | None = None
    """Records of your own, in place of --train: they are added to the project's facts."""
    validation: Input | None = None
    """Records to score at the end; without it, the held-out subjects of the facts."""
    train_share: Share = 1.0
    """Train on the records of this share of the subjects of --train, chosen by their names; the
    others are new to the editor."""
    phrasings: Times = 0
    """Train on only so many ways to put each relation of the project's facts (0: all, about 30);
    the first 18 are those of results made before there were more."""
    max_train: Times = 0
    """Use only so many training records (0: all)."""
    max_validation: Times = 0
    """Score only so many validation records (0: all)."""
    dev: Times = 64
    """Training records held out, by subject, for early stop and the best checkpoint; 0: none, and
    one of the training records takes their place."""
    longest: Length = 64
    """Longest sequence in tokens; longer pairs are left out and counted."""
    longest_answer: AnswerLength = 8
    """Longest target or answer in tokens; longer pairs are left out and counted."""


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """What a training step takes of each record."""

    outer: Annotated[int, between(1, 1024)] = 2
    """Pairs that score an edit in a step: the edit input, and rephrases."""
    swap: bool = True
    """Let any phrasing of a record be its edit input in training, not only its prompt."""
    near: Few = 1
    """Near locality pairs of an edit in a step (0: none)."""
    far: Few = 1
    """Far locality pairs of an edit in a step (0: none)."""
    k: Batch = 1
    """Records that are edited at once, as one edit; --batch counts such edits."""
    at_once: AtOnce = "joint"
    """Of k edits: one gradient of their mean loss (the authors' code); k edits that are made alone
    and added (the paper's text); or that are joined by a least-squares problem, so that none
    disturbs the others (as in MALMEN)."""
    allow_conflicts: bool = False
    """Let one prompt be edited to two targets at once."""


WITH_SCOPE: dict[str, Any] = {
    "ridge": 1.0, "alpha": 1e-3, "alpha_learning_rate": 1e-4, "near": 0, "far": 0,
}  # fmt: skip
"""What an editor is trained with that will be given a scope, unless other options are given: where
an edit acts is the scope's business; so it is the paper's chain, to which all phrasings look alike,
and nothing is asked of it about other texts."""


@dataclass(frozen=True, kw_only=True)
class ScopeOptions:
    """Where edits are felt."""

    scope: bool = False
    """Give the editor a scope: its edits are trained to act where they are
    asked for, a scope learns where that is, and many are held beside each other. Brings --ridge 1,
    --alpha 1e-3, --alpha-learning-rate 1e-4, --near 0 and --far 0, unless these are given."""
    scope_of: EditorPlace | None = None
    """Take the scope of another editor of the same base in place of training one: its directory, or
    its name on the hub, or that of a base, for the editor that comes with the package."""
    scope_steps: Steps = 300
    """Training steps of the scope."""
    scope_batch: Batch = 160
    """Records of such a step, whose edits are held beside each other."""
    scope_leaks: Share = LEAKS
    """Share of the neighbours, and of other questions about the subject, among the development
    slice that an edit may be felt in: the more, the more of its rephrases it is felt in."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How long training goes on, how fast, and how often what."""

    steps: Steps = 1000
    """Training steps."""
    batch: Batch = 10
    """Edits a step, each made alone."""
    learning_rate: Rate = 1e-5
    """Learning rate of the editor network; its peak, if it decays."""
    alpha_learning_rate: Rate = 3e-5
    """Learning rate of the edit rates; its peak, if it decays."""
    decay: Literal["cosine", "none"] = "cosine"
    """Learning rates: a short warm-up, then down along a cosine; or constant, as in the paper."""
    calibrate: Times = 48
    """Batches whose gradients are counted into the statistics before the first step; 0: none, for
    editors without statistics."""
    c_edit: Weight = 0.6
    """Weight of the edit loss; the locality KL has weight 1."""
    log_every: Steps = 10
    """Steps between rows of metrics.jsonl."""
    evaluate_every: Steps = 200
    """Steps between looks at the development slice."""
    checkpoint_every: Steps = 200
    """Steps between checkpoints."""
    patience: Times = 0
    """Stop after so many steps without a better development loss (0: never)."""
    resume: bool = False
    """Go on with the run in --out, from its newest checkpoint or, without one, from the start; a
    finished one is left as it is."""


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Devices and processes."""

    mesh: Mesh = "1x1"
    """Devices, DATAxMODEL: edits are split over DATA, the base's weights over MODEL."""
    shard_editor: bool = False
    """Split the editor and its optimiser over MODEL too."""
    distributed: bool = False
    """One of several processes, each started with the same options; Slurm, MPI and Kubernetes are
    found, elsewhere say --address, --processes and --process-id."""
    address: Address | None = None
    """HOST:PORT of the first process."""
    processes: Some | None = None
    """How many processes there are."""
    process_id: Times | None = None
    """Which of them this is, from 0."""
    trunk_cache: Literal["memory", "disk", "off"] = "memory"
    """Where the outputs of the frozen layers below the edited ones are kept between epochs."""
    stream: bool = False
    """Hold only the edited layers and those above; the others are read one by one, run, dropped."""


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
