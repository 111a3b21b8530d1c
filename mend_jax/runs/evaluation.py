"""One evaluation: a trained editor on records, under a protocol, at once or one after another."""

import math
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from mend_jax.data.batches import shapes_of
from mend_jax.data.codec import codec_of
from mend_jax.data.records import Record, of_some_subjects
from mend_jax.data.sources.registry import read_records
from mend_jax.evaluation.generation import (
    Interview,
    fluency,
    interview,
    make_speaker,
    scores_of,
    speak_of,
)
from mend_jax.evaluation.metrics import Estimate, summarise
from mend_jax.evaluation.scores import Scores
from mend_jax.evaluation.sequential import Point, Sequential, edit_in_sequence
from mend_jax.evaluation.teacher_forced import Batching, make_scorer, score
from mend_jax.objectives import Forced
from mend_jax.option_types import Batch, Times, between
from mend_jax.runs.held import elsewhere_of, first_group, forced_held, spoken_held, standing_of
from mend_jax.runs.work import Work, tail_of
from mend_jax.saved.building import build_editor
from mend_jax.saved.directory import SavedEditor

TEXTS = 10
"""Edits whose texts are kept in results.json."""
POINTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Numbers of edits after which a sequence is scored."""
ROOM = 8
"""Tokens that an answer may go on for after the longest right one, to be found wrong."""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How a trained editor is scored."""

    protocol: Literal["sequence", "token", "exact", "contains"] = "sequence"
    """With the right answer fed in: every token of it right (the paper's), or the share of them
    that is; or the model's own words: they are the answer, or contain it."""
    k: Batch = 1
    """Records that are edited at once."""
    sequential: Times = 0
    """Make so many edits one after another, each on the model that those before have edited (0:
    each alone, or k at once)."""
    generate: Annotated[int, between(0, 4096)] = 0
    """Let the model speak before and after, so many tokens or as many as the answers need;
    results.json shows it for some edits. `exact` and `contains` do so anyway, with 0 too."""
    elsewhere: Times = 0
    """With an editor that has a scope: texts of each kind that are looked at for what held edits do
    where nothing is asked of them (running text, passages about edited subjects, what follows an
    answer); 0: none."""
    batch: Batch = 8
    """Records evaluated side by side; at least one group of k."""
    alone: bool = False
    """Score one edit after another in one shape, each pair by a pass of the whole base: slow, and
    the plainest way, to check the others by."""


def trained_on(saved: SavedEditor) -> list[Record] | None:
    """The records of files that the editor, or its scope, was trained on; None, with a warning, if
    a file is no longer there, or cannot be read any more. That is no fault of the records that are
    scored."""
    training = saved.config.get("training", {})
    scope = training.get("scope")
    told = [training, *([scope] if isinstance(scope, dict) else [])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about that file, told when it was trained on
            return [
                record
                for one in told
                if (path := one.get("train"))
                for record in of_some_subjects(read_records(path), one.get("train_share", 1.0))
            ]
    except (ValueError, OSError) as error:
        warnings.warn(
            f"the records that the editor was trained on cannot be read any more ({error}): "
            "whether it has seen subjects of these is not known",
            stacklevel=2,
        )
        return None


def measure(options: ScoreOptions, work: Work) -> tuple[dict[str, Estimate], dict[str, Any]]:
    """The metrics, and what else belongs in results.json: texts, or the curves of a sequence."""
    scoped = "scoped" in work.saved.config
    if options.sequential and not scoped:
        scores, curve = in_sequence(options, work)
        return summarise(scores, work.seed), {"curve": [point._asdict() for point in curve]}
    more: dict[str, Any] = {}
    k, first = options.sequential or options.k, None
    if options.protocol == "exact" or options.protocol == "contains":
        interviews = speak(options, work)
        scores = scores_of(interviews, work.records, options.protocol)
    else:
        if is_held(options, work):
            in_turn = bool(options.sequential)
            standing = standing_of(work, options.protocol, options.batch, k, in_turn)
            scores, first, points, seconds, subjects, right = forced_held(standing, work)
            more["roc"] = [point._asdict() for point in points]
            more["making"] = {"edits": len(work.records) + len(work.beside), "seconds": seconds}
            more["several edits of one subject"] = {"subjects": subjects, "all right": right}
        else:
            scores = forced(options, options.protocol, work)
        some = work.records[: max(TEXTS // options.k, 1) * options.k]
        interviews = speak(options, work._replace(records=some)) if options.generate else []
    for when in ("before", "after"):
        texts = [getattr(heard, when) for entry in interviews for heard in entry.outer]
        if not math.isnan(value := fluency(texts)):
            more[f"fluency_{when}"] = value
    if interviews:
        more["texts"] = [texts_of(entry) for entry in interviews[:TEXTS]]
    if options.elsewhere:
        group = first or first_group(work, k, options.batch)
        more["elsewhere"] = elsewhere_of(work, group, options.elsewhere, options.batch)
    share_fate = 1 if is_held(options, work) else options.k
    return summarise(scores, work.seed, share_fate), more


def forced(options: ScoreOptions, protocol: Forced, work: Work) -> Scores:
    """Scores under teacher forcing, over the tail of the base."""
    trunk, outputs, cache = tail_of(work, options.alone)
    editor = build_editor(work.saved.config, outputs)
    shapes = shapes_of(work.records) if options.alone else None
    return score(
        make_scorer(editor, outputs.logits, trunk, work.mesh, protocol),
        work.saved.state, work.saved.base.params, work.records,
        Batching(shapes, cache, side_by_side(options), options.k), work.reporter.scored,
    )  # fmt: skip


def in_sequence(options: ScoreOptions, work: Work) -> tuple[Scores, list[Point]]:
    """One edit after another, over the tail of the base."""
    trunk, outputs, cache = tail_of(work)
    sequential = Sequential(partial(build_editor, work.saved.config), outputs, POINTS, trunk)
    return edit_in_sequence(
        sequential, work.saved.state, work.saved.base.params, work.records,
        Batching(None, cache, options.batch), work.reporter.scored,
    )  # fmt: skip


def speak(options: ScoreOptions, work: Work) -> list[Interview]:
    """The model's own words."""
    saved = work.saved
    longest = max(len(p.labels) for r in work.records for p in (*r.outer, *r.locality))
    new = max(options.generate, longest + ROOM)  # a right answer is never cut, a wrong one shows
    if is_held(options, work):
        return spoken_held(work, options.k, options.batch, new)
    speaker = make_speaker(saved.editor, speak_of(saved.base.model, new), codec_of(saved.base))
    return interview(
        speaker, saved.state, saved.base.params, work.records,
        Batching(batch=side_by_side(options), k=options.k), work.reporter.interviewed,
    )  # fmt: skip


def is_held(options: ScoreOptions, work: Work) -> bool:
    """Whether many edits are held, each in its scope, and not one program makes them all."""
    many = options.k > 1 or options.sequential or work.beside
    return bool(many) and "scoped" in work.saved.config


def side_by_side(options: ScoreOptions) -> int:
    """Groups of k records that are evaluated at a time."""
    return 1 if options.alone else max(1, options.batch // options.k)


def texts_of(entry: Interview) -> dict[str, list[dict[str, str]]]:
    """An interview as JSON."""
    return {
        name: [heard._asdict() for heard in part] for name, part in entry._asdict().items()
    }
