"""The options of a training run in groups, by who obeys them."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mend_jax.data.bucketing import ANSWERS, LENGTHS
from mend_jax.editors.method import AtOnce
from mend_jax.models.memory import Dtype
from mend_jax.option_types import (
    Address,
    Batch,
    Few,
    Input,
    Mesh,
    Model,
    Rate,
    Seed,
    Share,
    SiteNames,
    Some,
    Steps,
    Times,
    Weight,
    between,
)
from mend_jax.runs.opening import EditorPlace
from mend_jax.training.thresholds import LEAKS

Length = Annotated[int, between(1, LENGTHS[-1])]
"""Tokens of a sequence: batches have shapes of a table, which ends there."""
AnswerLength = Annotated[int, between(1, ANSWERS[-1])]


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
    """Hold only the edited layers and those above; the others are read one by one, run, dropped. So
    it is done, too, where there is no room for all of the base."""
