"""What held edits do where nothing is asked of them: in running text, and after an answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from mend_jax.data.decoding import pad_prompts
from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.scoped import acting
from mend_jax.models.generate import generate
from mend_jax.models.stages import Inputs
from mend_jax.objectives import kl_divergence
from mend_jax.routed import seen_by
from mend_jax.scopes.active import NONE
from mend_jax.scopes.network import Scope

TOKENS = 512
"""Of a batch: every position of a text has logits of the whole vocabulary, twice."""


class Elsewhere(NamedTuple):
    """fired: positions of a thousand at which an edit acts. kl: KL(base || edited), nats a token.
    tokens: that were looked at."""

    fired: float
    kl: float
    tokens: int


class SaidAgain(NamedTuple):
    """Share of texts, gone on with after an edit's answer, that say its target once more."""

    edited: float
    base: float


class Under(NamedTuple):
    """A base under held edits. editor: of edits that are made already (`teacher_forced.kept`), of
    whose state they are a part. phi: of the scope."""

    model: nn.Module
    editor: Editor
    scope: Scope
    phi: PyTree
    state: EditorState
    params: PyTree


def elsewhere(
    under: Under, texts: Sequence[Int[np.ndarray, "_"]], starts: Sequence[int]
) -> Elsewhere:
    """Reads texts with and without the edits, each from one of its positions on."""

    def logits(params: PyTree, tokens: Array) -> Any:
        return under.model.apply({"params": params}, Inputs(tokens))

    @jax.jit
    def read(state: EditorState, params: PyTree, tokens: Array, looked_at: Array) -> Any:
        base = logits(params, tokens)
        after = under.editor.apply(state, logits, state.stats)(params, tokens)
        which = acting(under.scope, under.phi, state.stats, seen_by(logits, params, tokens))
        kl = jnp.where(looked_at, kl_divergence(base, after), 0.0)
        return jnp.sum((which != NONE) & looked_at), jnp.sum(kl), jnp.sum(looked_at)

    longest = max(map(len, texts))
    batch = max(1, TOKENS // longest)
    found = np.zeros(3)
    for i in range(0, len(texts), batch):
        tokens = np.zeros((batch, longest), np.int32)
        looked_at = np.zeros((batch, longest), bool)
        some = zip(texts[i : i + batch], starts[i : i + batch], strict=True)
        for place, (text, start) in enumerate(some):
            tokens[place, : len(text)], looked_at[place, start : len(text)] = text, True
        found += np.asarray(read(under.state, under.params, tokens, looked_at), np.float64)
    fired, kl, n = found
    return Elsewhere(1000 * fired / n, kl / n, int(n))


def gone_on(
    under: Under, texts: Sequence[Int[np.ndarray, "_"]], new: int, batch: int
) -> tuple[Int[np.ndarray, "texts new"], Int[np.ndarray, "texts new"]]:
    """How base and edited model go on from each text, greedily, by so many tokens."""

    def speak(params: PyTree, tokens: Array, lengths: Array) -> Array:
        return generate(under.model, params, tokens, lengths, new)

    @jax.jit
    def both(state: EditorState, params: PyTree, tokens: Array, lengths: Array) -> Any:
        edited = under.editor.apply(state, speak, state.stats)
        return speak(params, tokens, lengths), edited(params, tokens, lengths)

    longest, parts = max(map(len, texts)), []
    for i in range(0, len(texts), batch):
        some = list(texts[i : i + batch])
        tokens, lengths = pad_prompts([*some, *[some[-1]] * (batch - len(some))], length=longest)
        said = jax.device_get(both(under.state, under.params, tokens, lengths))
        parts.append([np.asarray(x)[: len(some)] for x in said])
    base, edited = (np.concatenate(x) for x in zip(*parts, strict=True))
    return base, edited


def said_again(
    said: tuple[np.ndarray, np.ndarray], targets: Sequence[Int[np.ndarray, "_"]]
) -> SaidAgain:
    """Of what base and edited model went on with, how often the target's tokens stand in it."""
    base, edited = (
        float(np.mean([_within(x, target) for x, target in zip(part, targets, strict=True)]))
        for part in said
    )
    return SaidAgain(edited, base)


def _within(text: np.ndarray, part: np.ndarray) -> bool:
    n = len(part)
    return any(np.array_equal(text[i : i + n], part) for i in range(len(text) - n + 1))
