"""Scores scoped edits while all of them are held: made in small batches, scored in small batches.

Every edit is made on the base alone, whatever is held, and all pairs of all records are asked under
the one held value. Beside what the model answers, it is known which edit acted where.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from mend_jax.data.batches import edit_examples, shapes_of, shapes_of_edits
from mend_jax.data.records import KINDS
from mend_jax.data.token_records import TokenRecord
from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.held import Slots
from mend_jax.editors.scoped import acting
from mend_jax.evaluation.collating import collate_records, missing, widths
from mend_jax.evaluation.scores import HEADLINE, Scores
from mend_jax.evaluation.teacher_forced import Batching, Scorer, kept, make_scorer, score
from mend_jax.example import Example, Pair
from mend_jax.objectives import Forced, Outputs, after_trunk
from mend_jax.scopes.active import NONE, passed
from mend_jax.scopes.network import Keys, Scope


class Holder(NamedTuple):
    """A scoped editor, and what it works over.

    outputs: of the base, or of its tail. trunk: run on every example, unless that is cached.
    """

    editor: Editor
    scope: Scope
    outputs: Outputs
    trunk: nn.Module | None = None
    protocol: Forced = "sequence"


class Asked(NamedTuple):
    """At the end of each prompt: the slot of the edit that acts there, or NONE; the slot of the one
    that passes both thresholds best, and by how many logits (below 0: it does not)."""

    acts: Int[Any, "edits pairs"]
    nearest: Int[Any, "edits pairs"]
    margin: Float[Any, "edits pairs"]


class Programs(NamedTuple):
    """Of a holder, jitted once for all groups of edits that are held.

    make(state, params, examples) -> kept edits, for independent edits along a leading axis.
    score: of the `kept` editor. ask(phi, params, held, examples) -> of outer and locality pairs.
    """

    make: Callable[[EditorState, PyTree, Example], PyTree]
    score: Scorer
    ask: Callable[[PyTree, PyTree, Slots, Example], tuple[Asked, Asked]]


def programs_of(holder: Holder) -> Programs:
    """The three programs."""

    def make(state: EditorState, params: PyTree, examples: Example) -> PyTree:
        examples = after_trunk(holder.trunk, params, examples)
        edits: Any = jax.vmap(holder.editor.edit, (None, None, 0))(state, params, examples)
        return jax.tree.map(lambda x: x[:, 0], edits.kept)

    def ask(phi: PyTree, params: PyTree, held: Slots, examples: Example) -> tuple[Asked, Asked]:
        examples = after_trunk(holder.trunk, params, examples)

        def at_end(pair: Pair) -> Asked:
            end = pair.inputs.read[:, :1]
            seen = pair.inputs.seen
            which = acting(holder.scope, phi, held, seen)
            keys = holder.scope.keys(phi, seen.states, seen.mask)
            asking = Keys(*(jnp.take_along_axis(x, end[..., None], axis=1)[:, 0] for x in keys))
            both = passed(holder.scope.near(phi, asking, held.kept.keys), held.used)
            acts = jnp.take_along_axis(which, end, axis=1)[:, 0]
            return Asked(acts, jnp.argmax(both, axis=-1), jnp.max(both, axis=-1))

        return jax.vmap(at_end)(examples.outer), jax.vmap(at_end)(examples.locality)

    scorer = make_scorer(
        kept(holder.editor), holder.outputs.logits, holder.trunk, protocol=holder.protocol
    )
    return Programs(jax.jit(make), scorer, jax.jit(ask))


def make_kept(
    programs: Programs,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    batching: Batching = Batching(),
) -> PyTree:
    """The edits of all records along a leading axis, in their order, on the host."""
    edits, batch = [record.edit for record in records], batching.batch
    shapes, parts = batching.shapes or shapes_of_edits(edits), []
    for i in range(0, len(edits), batch):
        chosen = edits[i : i + batch]
        filled = [*chosen, *[chosen[-1]] * (batch - len(chosen))]
        examples = edit_examples([[edit] for edit in filled], shapes, batching.cache)
        made = jax.device_get(programs.make(state, params, examples))
        parts.append(jax.tree.map(lambda x, n=len(chosen): x[:n], made))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def score_held(
    programs: Programs,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    batching: Batching = Batching(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Scores, tuple[Asked, Asked]]:
    """Scores records whose edits are held in the first slots, in their order.

    Args:
      state: of the editor, and as `stats` the held edits, as `kept` has them.
      batching: its k is 1. progress: as in `teacher_forced.score`.

    Returns:
      scores, and what the scope said of the outer and of the locality pairs.
    """
    scores = score(programs.score, state, params, records, batching, progress)
    asked = ask_held(programs, state, params, records, batching)
    return scores._replace(**_acting(asked, records)), asked


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of several groups, one after another."""

    def join(*arrays: np.ndarray) -> np.ndarray:
        if arrays[0].ndim == 1:
            return np.concatenate(arrays)
        width = max(x.shape[1] for x in arrays)
        blank = np.nan if arrays[0].dtype.kind == "f" else 0
        room = [((0, 0), (0, width - x.shape[1])) for x in arrays]
        return np.concatenate(
            [np.pad(x, r, constant_values=blank) for x, r in zip(arrays, room, strict=True)]
        )

    found: Scores = jax.tree.map(join, *parts)
    return found


def ask_held(
    programs: Programs,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    batching: Batching,
) -> tuple[Asked, Asked]:
    """Of each record's outer and locality pairs, in their places; others are anything."""
    shapes, batch = batching.shapes or shapes_of(records), batching.batch
    width, found = widths(records), []
    for i in range(0, len(records), batch):
        chosen = records[i : i + batch]
        filled = [[record] for record in (*chosen, *[chosen[-1]] * (batch - len(chosen)))]
        examples = collate_records(filled, shapes, width, batching.cache)
        asked = jax.device_get(programs.ask(state.phi.phi.scope, params, state.stats, examples))
        found.append(jax.tree.map(lambda x, n=len(chosen): x[:n], asked))
    together: tuple[Asked, Asked] = jax.tree.map(lambda *x: np.concatenate(x), *found)
    return together


class Point(NamedTuple):
    """With both thresholds lower by so many logits: the shares of rephrases whose own edit passes
    them best, or another; and of locality prompts (of the headline, of the own subject) at which
    any does. None: there are no such prompts."""

    lower: float
    found: float | None
    wrong: float | None
    fired: float | None
    fired_own: float | None


LOWER = np.arange(-10.0, 10.5, 1.0)


def trade_off(asked: Sequence[tuple[Asked, Asked]], scores: Scores) -> list[Point]:
    """What other thresholds would have found, and where they would have fired.

    Args:
      asked: of each group that was scored, in the order of the scores.
    """
    own = np.concatenate([np.arange(len(outer.nearest)) for outer, _ in asked])[:, None]
    no_rephrase, no_locality = np.isnan(scores.success), np.isnan(scores.agreement)
    outer = _together([part for part, _ in asked], no_rephrase.shape[1])
    locality = _together([part for _, part in asked], no_locality.shape[1])
    rephrase, there = ~no_rephrase, ~no_locality
    rephrase[:, 0] = False
    headline = np.isin(scores.kinds, [KINDS.index(kind) for kind in HEADLINE])

    def share(values: np.ndarray, at: np.ndarray) -> float | None:
        return float(np.mean(values[at])) if np.any(at) else None

    points = []
    for lower in LOWER:
        passes, leaks = outer.margin > -lower, locality.margin > -lower
        mine = outer.nearest == own
        points.append(
            Point(
                float(lower), share(passes & mine, rephrase), share(passes & ~mine, rephrase),
                share(leaks, there & headline), share(leaks, there & ~headline),
            )
        )  # fmt: skip
    return points


def _together(parts: Sequence[Asked], width: int) -> Asked:
    """One after another, with as many places for each record."""

    def join(*arrays: np.ndarray) -> np.ndarray:
        return np.concatenate([np.pad(x, [(0, 0), (0, width - x.shape[1])]) for x in arrays])

    return Asked(*map(join, *parts))


def _acting(asked: tuple[Asked, Asked], records: Sequence[TokenRecord]) -> dict[str, np.ndarray]:
    """Of each pair, whether its own edit acts at the end of its prompt, and whether any does."""
    outer, locality = (part.acts for part in asked)
    own = np.arange(len(records))[:, None]
    no_outer, no_locality = missing(records)
    return {
        "found": np.where(no_outer, np.nan, outer == own),
        "wrong": np.where(no_outer, np.nan, (outer != own) & (outer != NONE)),
        "fired": np.where(no_locality, np.nan, locality != NONE),
    }
