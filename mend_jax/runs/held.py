"""Scoped edits scored in groups: those of a group are held together, and others beside them."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from mend_jax.data.batches import shapes_of, shapes_of_edits
from mend_jax.data.codec import codec_of
from mend_jax.data.edited_subjects import folded
from mend_jax.data.token_records import TokenRecord
from mend_jax.editors.base import EditorState
from mend_jax.editors.held import Slots, count
from mend_jax.editors.scoped import holding, spread
from mend_jax.evaluation.elsewhere import Under, elsewhere, gone_on, said_again
from mend_jax.evaluation.generation import Interview, interview, make_speaker, speak_of
from mend_jax.evaluation.held import (
    Holder,
    Point,
    Programs,
    joined,
    make_kept,
    programs_of,
    score_held,
    trade_off,
)
from mend_jax.evaluation.scores import Scores
from mend_jax.evaluation.teacher_forced import Batching, kept
from mend_jax.objectives import Forced
from mend_jax.runs.scope_passages import anything, passages_of
from mend_jax.runs.work import Work, tail_of
from mend_jax.saved.building import build_editor
from mend_jax.scopes.registry import scope_of


class Group(NamedTuple):
    """Records, and the state of the `kept` editor that holds their edits in its first slots."""

    records: Sequence[TokenRecord]
    state: EditorState


class Standing(NamedTuple):
    """The programs of an evaluation, and how records are put through them.

    k: records of a group. one_by_one: edits are added one after another, not all at once.
    """

    programs: Programs
    batching: Batching
    k: int
    one_by_one: bool = False


class Together(NamedTuple):
    """Scores of groups, and what is told of them: the first group; what other thresholds would have
    found; seconds that making the edits took, with compiling; and of the subjects that several
    edits of a group are about, how many there are, and the share of which every edit is answered.
    """

    scores: Scores
    first: Group
    roc: list[Point]
    seconds: float
    subjects: int
    subjects_right: float | None


def standing_of(
    work: Work, protocol: Forced, batch: int, k: int, one_by_one: bool = False
) -> Standing:
    """Over the tail of the base."""
    trunk, outputs, cache = tail_of(work)
    editor = build_editor(work.saved.config, outputs)
    scope = scope_of(work.saved.config["scoped"]["scope"])
    programs = programs_of(Holder(editor, scope, outputs, trunk, protocol))
    return Standing(programs, Batching(None, cache, batch), k, one_by_one)


def groups_of(work: Work, standing: Standing) -> Iterator[Group]:
    """Every k records in order, and the edits that are held while they are scored: their own, and
    those beside. Each edit is made once, on the base."""
    k = standing.k
    every = [*work.records[: len(work.records) // k * k], *work.beside]
    batching = standing.batching._replace(shapes=shapes_of_edits([entry.edit for entry in every]))
    made = make_kept(standing.programs, work.saved.state, work.saved.base.params, every, batching)
    scored = len(every) - len(work.beside)

    def rows(*spans: slice) -> PyTree:
        return jax.tree.map(lambda x: jnp.asarray(np.concatenate([x[s] for s in spans])), made)

    for i in range(0, scored, k):
        some = rows(slice(i, i + k), slice(scored, None))
        held = added(some) if standing.one_by_one else holding().hold(some, count(some))
        held = held if work.mesh is None else spread(held, work.mesh)
        yield Group(work.records[i : i + k], EditorState(work.saved.state, held))


def added(kept: PyTree) -> Slots:
    """Edits along a leading axis, one added after another."""
    hold, n = holding(), count(kept)
    empty = hold.hold(jax.tree.map(lambda x: x[:0], kept), n)
    held: Slots = jax.jit(
        lambda kept: jax.lax.scan(lambda held, one: (hold.add(held, one), None), empty, kept)[0]
    )(kept)
    return held


def forced_held(standing: Standing, work: Work) -> Together:
    """Scores under teacher forcing, k records at a time."""
    programs, batching, k, _ = standing
    if len(work.records) // k > 1:  # one compilation for all groups
        batching = batching._replace(shapes=shapes_of(work.records))
    params, parts, asked = work.saved.base.params, [], []
    groups, began = groups_of(work, standing), time.perf_counter()
    first = next(groups)  # by then all edits are made
    seconds = time.perf_counter() - began
    for number, group in enumerate(itertools.chain([first], groups)):
        part, said = score_held(
            programs, group.state, params, group.records, batching,
            _after(work.reporter.scored, number * k, len(work.records)),
        )  # fmt: skip
        parts.append(part)
        asked.append(said)
    scores = joined(parts)
    right = of_one_subject(scores.success[:, 0], work.records, k)
    share = float(np.mean(right)) if right else None
    return Together(scores, first, trade_off(asked, scores), seconds, len(right), share)


def _after(tell: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    """Tells the progress of a group, so many records of a total having been done before."""
    return lambda done, _: tell(before + done, total)


def of_one_subject(
    success: Float[np.ndarray, "edits"], records: Sequence[TokenRecord], k: int
) -> list[bool]:
    """Of each subject that several edits of one group are about: whether all are answered."""
    found: dict[tuple[int, str], list[bool]] = {}
    for i, value in enumerate(success):
        if name := folded(records[i].record.subject):
            found.setdefault((i // k, name), []).append(value == 1)
    return [all(answered) for answered in found.values() if len(answered) > 1]


def spoken_held(work: Work, k: int, batch: int, new: int) -> list[Interview]:
    """What the model says of k records at a time, up to so many new tokens."""
    saved = work.saved
    bare = [r._replace(rephrases=(), locality=(), kinds=()) for r in work.records]
    making = standing_of(work._replace(records=bare), "sequence", batch, k)
    speaker = make_speaker(
        kept(saved.editor), speak_of(saved.base.model, new), codec_of(saved.base)
    )
    found: list[Interview] = []
    for group in groups_of(work, making):
        found += interview(
            speaker, group.state, saved.base.params, group.records, Batching(batch=batch),
            _after(work.reporter.interviewed, len(found), len(work.records)),
        )  # fmt: skip
    return found


AFTER = 16
"""Tokens after an answer that are looked at."""


def first_group(work: Work, k: int, batch: int) -> Group:
    """The first k records, and their edits with those beside."""
    bare = [r._replace(rephrases=(), locality=(), kinds=()) for r in work.records[:k]]
    part = work._replace(records=bare)
    return next(groups_of(part, standing_of(part, "sequence", batch, k)))


def elsewhere_of(work: Work, group: Group, texts: int, batch: int) -> dict[str, Any]:
    """What the edits of a group, and those beside, do to so many texts of each kind: running text,
    what the base writes about edited subjects, what follows an answer."""
    base, (records, state) = work.saved.base, group
    scope = scope_of(work.saved.config["scoped"]["scope"])
    under = Under(
        base.model, kept(work.saved.editor), scope, state.phi.phi.scope, state, base.params
    )
    running, about = (
        [text.tokens for text in part]
        for part in (
            anything(base, work.seed + 1, texts),
            passages_of(base, [r.record for r in records], texts, work.seed + 1),
        )
    )  # fmt: skip
    chosen = [r.edit for r in records[:texts]]
    said = [np.append(pair.tokens, pair.labels[-1]).astype(np.int32) for pair in chosen]
    both = gone_on(under, said, AFTER, batch)
    after = [np.append(x, more).astype(np.int32) for x, more in zip(said, both[0], strict=True)]
    return {
        "running text": elsewhere(under, running, [0] * len(running))._asdict(),
        "passages about edited subjects": elsewhere(under, about, [0] * len(about))._asdict(),
        "after the answer": elsewhere(under, after, [len(x) for x in said])._asdict(),
        "target said again": said_again(both, [pair.labels for pair in chosen])._asdict(),
    }
