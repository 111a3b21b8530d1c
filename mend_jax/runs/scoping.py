"""A scope for an editor that is trained already: both are one editor from then on."""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from mend_jax.data.chat import in_template
from mend_jax.data.codec import codec_of
from mend_jax.data.own_subject import with_own
from mend_jax.data.prompt_batches import prompt_batches
from mend_jax.data.records import Record, drop_known_subjects
from mend_jax.data.scope_batches import scope_batches
from mend_jax.data.scope_texts import Corpus, subjects_of
from mend_jax.data.token_records import encode_records
from mend_jax.data.trunk_cache import TrunkCache
from mend_jax.editors.base import EditorState
from mend_jax.editors.scoped import ScopedPhi
from mend_jax.models.registry import Base
from mend_jax.models.stages import sites_at_read, split
from mend_jax.objectives import kind_of
from mend_jax.runs.scope_passages import LONGEST, among, spoken_of, surroundings
from mend_jax.runs.scope_states import narrowed, sample_of, states_of
from mend_jax.saved.building import build_editor, outputs_over
from mend_jax.saved.directory import SavedEditor, load_editor
from mend_jax.scopes.network import two_keys
from mend_jax.scopes.reading import Read, stages_for
from mend_jax.scopes.whole_text import two_keys_of_text
from mend_jax.training.scope import FIRST, standardised, train_relation, train_scope
from mend_jax.training.thresholds import LEAKS, ask, with_thresholds

OWN = 3
"""Questions about its own subject that each record is given for training."""
HELD = 5000
"""Edits that are held at most while thresholds are set: those of development, and of training."""
ROWS = 4
"""Of an edit that are kept at each site."""


DEVELOPMENT = 0.1
"""Share of the records, by subject, that the thresholds are set on; MOST of them at most."""
MOST = 300


class ScopeTraining(NamedTuple):
    """How a scope is trained: Adam's steps, records a step, the longest text in tokens, a seed; and
    the share of the development texts that may leak."""

    steps: int = 300
    batch: int = 160
    longest: int = 32
    seed: int = 0
    leaks: float = LEAKS


class ScopeRecords(NamedTuple):
    """What it learns from, and what its thresholds are set on; no subject is in both."""

    train: Sequence[Record]
    dev: Sequence[Record]


def parted(records: Sequence[Record], seed: int) -> ScopeRecords:
    """The records of a scope, of which some are held out by subject."""
    mixed = list(records)
    random.Random(seed).shuffle(mixed)
    dev = mixed[: min(MOST, round(DEVELOPMENT * len(mixed)))]
    return ScopeRecords(drop_known_subjects(mixed[len(dev) :], dev)[0], dev)


def reads_whole(model: Any) -> bool:
    """Whether it reads a text as a whole, and not from left to right."""
    return kind_of(model) != "causal"


def check_can_scope(model: Any, sites: tuple[str, ...]) -> Read:
    """The states that a scope reads.

    Raises:
      ValueError: the model has no answers to edit, or no block below the first edited one.
    """
    if (kind := kind_of(model)) not in ("causal", "seq2seq", "classifier"):
        raise ValueError(f"a {kind!r} model gives no answers that a scope could be about")
    trunk, _ = split(model, sites)
    first = 0 if trunk is None else trunk.stop
    end = getattr(model, "decoding", len(model.stages) - 1)  # of the blocks that read the text
    return stages_for(end - 1, min(first, end), reads_whole(model))


def sites_to_scope(model: Any, sites: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the default sites that can be edited within a scope: all, if two blocks that read
    the text lie below them; else those of the decoder, or of the last block."""
    trunk, _ = split(model, sites)
    if not reads_whole(model) or (trunk is not None and trunk.stop > 2):
        return sites
    kept = "decoder/" if kind_of(model) == "seq2seq" else f"{model.stages[-2]}/"
    return tuple(site for site in sites if site.startswith(kept))


def late_sites(model: Any, sites: tuple[str, ...]) -> tuple[str, ...]:
    """Those that see no positions but those `read`; none, where it makes no difference."""
    return () if reads_whole(model) else sites_at_read(model, sites)


def add_scope(
    saved: SavedEditor,
    records: ScopeRecords,
    training: ScopeTraining = ScopeTraining(),
    known: TrunkCache | None = None,
    say: Callable[[str], None] = print,
) -> SavedEditor:
    """The editor with a scope that was trained on these records.

    Args:
      known: the states of some of the texts, if they were made already.

    Raises:
      ValueError: the base has no block below the first edited one, or no answers; the editor has a
        scope; no record has a rephrase.
    """
    if "scoped" in saved.config:
        raise ValueError("the editor has a scope already: give one without")
    base, whole = saved.base, reads_whole(saved.base.model)
    narrow = narrowed(base)
    stages, late = check_can_scope(base.model, saved.sites)
    encode, limits = codec_of(base).pair, (training.longest, training.longest)
    records = ScopeRecords(*(in_template(base, part) for part in records))
    every = with_own([*records.train, *records.dev], training.seed, OWN)
    fits, skipped = encode_records(every[: len(records.train)], encode, *limits)
    mine = [entry.record for entry in fits if entry.rephrases]
    if not mine:
        raise ValueError("a scope learns from rephrases, and the records have none")
    longest, running = training.longest, []
    if not whole:
        running = surroundings(narrow, mine, training.seed)
        mine = among(base, mine, running, training.seed)
        longest = max(LONGEST, training.longest)
    train, _ = encode_records(mine, encode, longest, longest)
    dev, _ = encode_records(every[len(records.train) :], encode, *limits)
    beside = train[: max(HELD - len(dev), 0)]
    say(f"{len(train)} records to learn from; too long: {skipped.too_long._asdict()}")
    spoken = [None] * len(train) if whole else spoken_of(narrow, train, training.seed)
    texts = [pair.tokens for r in train for pair in (*r.outer, *r.locality)]
    texts += [*(x for x in spoken if x is not None), *(text.tokens for text in running)]
    states = states_of(narrow, stages, texts, known)
    sample = sample_of(states, train, training.seed)
    scope = (two_keys_of_text if whole else two_keys)(stages, late)
    phi = scope.init(jax.random.key(training.seed), sample.shape[-1])
    phi = standardised(phi, sample)
    corpus = Corpus(train, spoken, running, states, whole)
    if not whole:
        first = min(FIRST, 4 * training.steps // 3)
        prompts = prompt_batches(corpus, training.seed, longest, training.longest)
        phi = train_relation(scope, phi, prompts, first)
    batches = scope_batches(corpus, training.batch, training.seed, longest, training.longest)
    subjects = subjects_of(train)
    phi = train_scope(scope, phi, batches, training.steps, subjects, _told(say))
    if dev:
        texts = [pair.tokens for r in dev for pair in (*r.outer, *r.locality)]
        texts += [r.edit.tokens for r in beside]
        asked = ask(scope, phi, dev, states_of(base, stages, texts, known), beside)
        phi, found = with_thresholds(scope, phi, asked, training.leaks)
        shown = ", ".join(f"{name} {share:.3f}" for name, share in found._asdict().items())
        say(f"thresholds set on {len(dev)} edits that it has not seen: {shown}")
    return with_scope(saved, scope.config, phi)


class Lent(NamedTuple):
    """A trained scope. config: how to build it again."""

    config: dict[str, Any]
    phi: PyTree


def scope_lent(editor: str, base: Base, sites: tuple[str, ...]) -> Lent:
    """The scope of another editor, for one of the same base.

    Args:
      editor: as `load_editor` takes it.

    Raises:
      EditorError: as `load_editor`. ValueError: that one has none; it reads states of blocks that
        are edited at these sites.
    """
    lender = load_editor(editor, base)
    if "scoped" not in lender.config:
        raise ValueError("the editor whose scope is to be taken has none")
    lent = Lent(lender.config["scoped"]["scope"], lender.state.phi.scope)
    trunk, _ = split(base.model, sites)
    end = getattr(base.model, "decoding", len(base.model.stages))
    if trunk is None or max(lent.config["stages"]) > min(trunk.stop, end):
        raise ValueError("the scope reads states of blocks that are edited: edit later blocks only")
    return lent


def with_scope(saved: SavedEditor, scope: dict[str, Any], phi: PyTree) -> SavedEditor:
    """Editor and scope, as one editor."""
    late = list(late_sites(saved.base.model, saved.sites))
    config = saved.config | {"scoped": {"scope": scope, "late": late, "rows": ROWS}}
    base = saved.base._replace(model=saved.base.model.clone(keep=tuple(scope["stages"])))
    editor = build_editor(config, outputs_over(base, saved.sites))
    state = EditorState(ScopedPhi(saved.state.phi, jax.device_get(phi)), saved.state.stats)
    return SavedEditor(editor, state, base, saved.sites, config)


def _told(say: Callable[[str], None]) -> Callable[[int, dict[str, float]], None]:
    def told(step: int, losses: dict[str, float]) -> None:
        shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        say(f"step {step:6}  {shown}")

    return told
