"""A scope for an editor that is trained already: both are one editor from then on."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from mend_jax.data.batches import TokenRecord, encode_records
from mend_jax.data.codec import codec_of
from mend_jax.data.own_subject import with_own
from mend_jax.data.records import Record
from mend_jax.data.scope_texts import scope_batches
from mend_jax.data.trunk_cache import TrunkCache, cache_trunk
from mend_jax.editors.base import EditorState
from mend_jax.editors.scoped import ScopedPhi
from mend_jax.models.generate import generate, sampled
from mend_jax.models.registry import Base
from mend_jax.models.stages import split
from mend_jax.objectives import outputs_of
from mend_jax.saved.directory import SavedEditor, build_editor
from mend_jax.scopes.network import stages_for, two_keys
from mend_jax.training.scope import SAMPLE, standardised, train_scope

OWN = 3
"""Questions about its own subject that each record is given for training."""
PASSAGES = 128
"""Texts that the base writes itself, about some of the subjects."""
WRITTEN = 48
"""Tokens of one."""


class ScopeTraining(NamedTuple):
    """How a scope is trained: Adam's steps, records a step, the longest text in tokens, a seed."""

    steps: int = 300
    batch: int = 160
    longest: int = 32
    seed: int = 0


def add_scope(
    saved: SavedEditor,
    records: Sequence[Record],
    training: ScopeTraining = ScopeTraining(),
    rows: int = 4,
    say: Callable[[str], None] = print,
) -> SavedEditor:
    """The editor with a scope that was trained on these records.

    Raises:
      ValueError: the base is no causal model with a block below the first edited one; the editor
        has a scope; no record has a rephrase.
    """
    base = saved.base
    if "scoped" in saved.config:
        raise ValueError("the editor has a scope already: give one without")
    if getattr(base.model, "kind", None) != "causal" or not hasattr(base.model, "keep"):
        raise ValueError("scopes are for causal models only")
    trunk, _ = split(base.model, saved.sites)
    blocks = len(base.model.stages) - 2
    stages = stages_for(blocks, 0 if trunk is None else trunk.stop)
    limits = (training.longest, training.longest)
    encode = codec_of(base).pair
    encoded, skipped = encode_records(with_own(records, training.seed, OWN), encode, *limits)
    encoded = [record for record in encoded if record.rephrases]
    if not encoded:
        raise ValueError("a scope learns from rephrases, and the records have none")
    say(f"{len(encoded)} records to learn from; too long: {skipped.too_long._asdict()}")
    passages = written(base, encoded, training.seed)
    cache = states_of(base, stages, encoded, passages)
    scope = two_keys(stages)
    phi = scope.init(jax.random.key(training.seed), cache.width)
    phi = standardised(phi, _sample(cache, encoded, training.seed))
    batches = scope_batches(
        encoded, passages, cache, training.batch, training.seed, training.longest
    )
    phi = train_scope(scope, phi, batches, training.steps, _told(say))
    within = {"scope": scope.config, "last_block": f"{base.model.stages[-2]}/", "rows": rows}
    config = saved.config | {"scoped": within}
    base = base._replace(model=base.model.clone(keep=stages))
    editor = build_editor(config, outputs_of(base.model))
    state = EditorState(ScopedPhi(saved.state.phi, jax.device_get(phi)), saved.state.stats)
    return SavedEditor(editor, state, base, saved.sites, config)


def written(
    base: Base, records: Sequence[TokenRecord], seed: int
) -> list[Int[np.ndarray, "_"]]:
    """What the base writes of itself after the names of some subjects: running text."""
    rng = np.random.default_rng((seed, 3))
    names = [r.record.subject or r.record.prompt for r in records]
    chosen = [names[i] for i in rng.permutation(len(names))[:PASSAGES]]
    codec = codec_of(base)
    begun = [codec.pair(name, " is").tokens[:12] for name in chosen]
    lengths = np.asarray([len(tokens) for tokens in begun], np.int32)
    tokens = np.zeros((len(begun), 12), np.int32)
    for row, text in zip(tokens, begun, strict=True):
        row[: len(text)] = text
    choice = sampled(jax.random.key(seed))
    said = jax.jit(
        lambda params, tokens, lengths: generate(
            base.model, params, tokens, lengths, WRITTEN, choice
        )
    )(base.params, jnp.asarray(tokens), jnp.asarray(lengths))
    return [
        np.concatenate([text, more]).astype(np.int32)
        for text, more in zip(begun, np.asarray(said), strict=True)
    ]


def states_of(
    base: Base,
    stages: tuple[int, ...],
    records: Sequence[TokenRecord],
    passages: Sequence[Int[np.ndarray, "_"]],
) -> TrunkCache:
    """The states that a scope reads, of all texts."""
    trunk: Any = base.model.clone(stop=stages[-1], keep=stages)
    pairs = [pair for r in records for pair in (*r.outer, *r.locality)]
    return cache_trunk(trunk, base.params, [*(pair.tokens for pair in pairs), *passages])


def _sample(cache: TrunkCache, records: Sequence[TokenRecord], seed: int) -> np.ndarray:
    """States of some positions."""
    texts = [pair.tokens for r in records for pair in r.outer]
    order = np.random.default_rng((seed, 4)).permutation(len(texts))[: SAMPLE // 4]
    return np.concatenate([cache.states(texts[i]) for i in order])


def _told(say: Callable[[str], None]) -> Callable[[int, dict[str, float]], None]:
    def told(step: int, losses: dict[str, float]) -> None:
        shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        say(f"step {step:6}  {shown}")

    return told
