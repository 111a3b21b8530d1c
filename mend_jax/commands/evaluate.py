"""Scores a trained editor on any file of records, or on the project's held-out facts.

    mend-jax evaluate --editor runs/quickstart --records FILE --out DIR
    mend-jax evaluate --editor runs/quickstart --protocol contains --out DIR
    mend-jax evaluate --editor runs/quickstart --k 25 --out DIR
    mend-jax evaluate --editor runs/quickstart --sequential 100 --out DIR

Every edit is made alone on the unedited base, or k at once, or one after another. Writes
results.json and scores.png; the metrics are defined in mend_jax/evaluation/metrics.py.
"""

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
from jax.sharding import Mesh

from mend_jax.commands.command import Command, Preset
from mend_jax.data.batches import (
    ANSWERS,
    LENGTHS,
    TokenRecord,
    encode_records,
    grouped,
    shapes_of,
)
from mend_jax.data.codec import codec_of
from mend_jax.data.records import Record, drop_known_subjects
from mend_jax.data.sources.registry import read_records
from mend_jax.data.trunk_cache import TrunkCache, cache_trunk, can_be_cached
from mend_jax.evaluation.generation import (
    Interview,
    fluency,
    interview,
    make_speaker,
    scores_of,
    speak_of,
)
from mend_jax.evaluation.metrics import PROTOCOLS, Metric, Scores, summarise
from mend_jax.evaluation.sequential import Point, Sequential, edit_in_sequence
from mend_jax.evaluation.teacher_forced import Batching, make_scorer, score
from mend_jax.models.memory import Dtype
from mend_jax.models.stages import split
from mend_jax.objectives import Forced, Outputs, outputs_of
from mend_jax.parallel import mesh_of
from mend_jax.reports.figures import score_bars
from mend_jax.reports.progress import Reporter
from mend_jax.reports.results import make_results, table, write_results
from mend_jax.runs.options import ReadingOptions
from mend_jax.runs.splits import check_conflicts, own_records, reading_of
from mend_jax.saved.directory import SavedEditor, build_editor, load_editor

TEXTS = 10
"""Edits whose texts are kept in results.json."""
POINTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Numbers of edits after which a sequence is scored."""
ROOM = 8
"""Tokens that an answer may go on for after the longest right one, to be found wrong."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(ReadingOptions):
    """Options of an evaluation."""

    editor: Path
    """Directory of a trained editor."""
    out: Path
    """Directory for results.json and scores.png."""
    records: Path | None = None
    """Records to score it on: your own JSONL, or a published file of CounterFact, zsRE, FEVER or
    Wikitext generation; without it, the held-out subjects of the project's facts."""
    limit: int = 0
    """Score only so many records (0: all)."""
    protocol: Literal["sequence", "token", "exact", "contains"] = "sequence"
    """With the right answer fed in: every token of it right (the paper's), or the share of them
    that is; or the model's own words: they are the answer, or contain it."""
    k: int = 1
    """Records that are edited at once."""
    at_once: Literal["joint", "summed", "solved"] | None = None
    """Of k edits: one gradient of their mean loss; or k edits that are made alone and added, or
    joined without their crosstalk; by default as the editor was trained."""
    allow_conflicts: bool = False
    """Let one prompt be edited to two targets at once."""
    sequential: int = 0
    """Make so many edits one after another, each on the model that those before have edited."""
    generate: int = 0
    """Let the model speak before and after, so many tokens or as many as the answers need;
    results.json shows it for some edits. `exact` and `contains` do so anyway."""
    batch: int = 8
    """Records evaluated side by side; at least one group of k."""
    alone: bool = False
    """Score one edit after another in one shape, each pair by a pass of the whole base: slow, and
    the plainest way, to check the others by."""
    longest: int = 128
    """Longest sequence in tokens; longer pairs are left out and counted."""
    longest_answer: int = 32
    """Longest target or answer in tokens; longer pairs are left out and counted."""
    dtype: Dtype | None = None
    """Of the base's weights; by default what the editor was trained with."""
    mesh: str = "1x1"
    """Devices, DATAxMODEL: edits are split over DATA, the base's weights over MODEL."""


class Work(NamedTuple):
    """A loaded editor, and the records to score it on."""

    saved: SavedEditor
    records: list[TokenRecord]
    mesh: Mesh | None
    reporter: Reporter


def evaluate(config: Evaluate) -> None:
    """Loads, scores, prints, writes."""
    check(config)
    mesh = mesh_of(config.mesh)
    reading = reading_of(config, "validation")
    given = config.records and read_records(config.records, reading)  # broken files first
    saved = load_editor(config.editor, mesh=mesh, dtype=config.dtype)
    if config.at_once is not None:
        editing = saved.config | {"at_once": config.at_once}
        editor = build_editor(editing, outputs_of(saved.base.model))
        saved = saved._replace(editor=editor, config=editing)
    records, dataset = (
        (given, str(config.records)) if given else own_records(saved.base, reading)
    )
    known = known_of(saved, records)
    if known:
        print(f"warning: {known} of {len(records)} records have subjects that were trained on")
    began = time.perf_counter()
    limits = (config.longest, config.longest_answer)
    encoded, skipped = encode_records(
        records[: config.limit or None], codec_of(saved.base).pair, *limits
    )
    wanted = config.sequential or config.k
    if len(encoded) < wanted:
        raise ValueError(
            f"{dataset}: {wanted} edits are wanted, {len(encoded)} records are short enough "
            f"(left out: {skipped})"
        )
    scored = config.sequential or len(encoded) // config.k * config.k
    left_out = skipped._asdict() | {"records that fill no group": len(encoded) % config.k}
    encoded = encoded[:scored]
    if config.k > 1 and not config.allow_conflicts:
        check_conflicts(grouped(encoded, config.k))
    with Reporter(0) as reporter:
        work = Work(saved, encoded, mesh, reporter)
        metrics, more = measure(config, work)
    options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    results = make_results(
        saved.config["editor"],
        saved.base.name,
        dataset,
        PROTOCOLS[config.protocol],
        len(encoded),
        metrics,
        time.perf_counter() - began,
        options | {"left_out": left_out, "records of subjects trained on": known},
    )
    write_results(config.out / "results.json", results | more)
    score_bars(config.out / "scores.png", results)
    print(table(results))


def known_of(saved: SavedEditor, records: Sequence[Record]) -> int:
    """How many of the records have a subject that the editor was trained on, if its file of
    training records is still where it was."""
    path = saved.config.get("training", {}).get("train")
    if not path or not Path(path).exists():
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about that file, told when it was trained on
        return drop_known_subjects(records, read_records(path))[1]


def check(config: Evaluate) -> None:
    """Raises ValueError for options that do not fit together."""
    if (config.out / "results.json").exists():
        raise ValueError(f"{config.out} holds a results.json already: give another --out")
    for name, least in (("k", 1), ("batch", 1), ("sequential", 0), ("generate", 0), ("limit", 0)):
        if getattr(config, name) < least:
            raise ValueError(f"--{name} must be at least {least}, is {getattr(config, name)}")
    for name, most in (("longest", LENGTHS[-1]), ("longest_answer", ANSWERS[-1])):
        if not 1 <= getattr(config, name) <= most:
            raise ValueError(f"--{name.replace('_', '-')} must be from 1 to {most}")
    single = config.k == 1 and config.at_once is None and not config.alone
    if config.sequential and not (
        single and config.protocol == "sequence" and not config.generate
    ):
        raise ValueError(
            "--sequential makes one edit after another and scores them under the protocol "
            "`sequence`: --k, --at-once, --alone, --protocol and --generate do not go with it"
        )


def measure(config: Evaluate, work: Work) -> tuple[dict[str, Metric], dict[str, Any]]:
    """The metrics, and what else belongs in results.json: texts, or the curves of a sequence."""
    if config.sequential:
        scores, points = in_sequence(config, work)
        return summarise(scores, config.seed), {"curve": [point._asdict() for point in points]}
    if config.protocol == "exact" or config.protocol == "contains":
        interviews = speak(config, work)
        scores = scores_of(interviews, work.records, config.protocol)
    else:
        scores = forced(config, config.protocol, work)
        some = work.records[: max(TEXTS // config.k, 1) * config.k]
        interviews = speak(config, work._replace(records=some)) if config.generate else []
    more: dict[str, Any] = {}
    for when in ("before", "after"):
        texts = [getattr(heard, when) for entry in interviews for heard in entry.outer]
        if not math.isnan(value := fluency(texts)):
            more[f"fluency_{when}"] = value
    if interviews:
        more["texts"] = [texts_of(entry) for entry in interviews[:TEXTS]]
    return summarise(scores, config.seed, config.k), more


def forced(config: Evaluate, protocol: Forced, work: Work) -> Scores:
    """Scores under teacher forcing, over the tail of the base."""
    trunk, outputs, cache = tail_of(work, config.alone)
    editor = build_editor(work.saved.config, outputs)
    shapes = shapes_of(work.records) if config.alone else None
    return score(
        make_scorer(editor, outputs.logits, trunk, work.mesh, protocol),
        work.saved.state, work.saved.base.params, work.records,
        Batching(shapes, cache, side_by_side(config), config.k), work.reporter.scored,
    )  # fmt: skip


def in_sequence(config: Evaluate, work: Work) -> tuple[Scores, list[Point]]:
    """One edit after another, over the tail of the base."""
    trunk, outputs, cache = tail_of(work)
    sequential = Sequential(partial(build_editor, work.saved.config), outputs, POINTS, trunk)
    return edit_in_sequence(
        sequential, work.saved.state, work.saved.base.params, work.records,
        Batching(None, cache, config.batch), work.reporter.scored,
    )  # fmt: skip


def speak(config: Evaluate, work: Work) -> list[Interview]:
    """The model's own words."""
    saved = work.saved
    longest = max(len(p.labels) for r in work.records for p in (*r.outer, *r.locality))
    new = max(config.generate, longest + ROOM)  # a right answer is never cut, a wrong one shows
    speaker = make_speaker(saved.editor, speak_of(saved.base.model, new), codec_of(saved.base))
    return interview(
        speaker, saved.state, saved.base.params, work.records,
        Batching(batch=side_by_side(config), k=config.k), work.reporter.interviewed,
    )  # fmt: skip


def side_by_side(config: Evaluate) -> int:
    """Groups of k records that are evaluated at a time."""
    return 1 if config.alone else max(1, config.batch // config.k)


def tail_of(
    work: Work, alone: bool = False
) -> tuple[nn.Module | None, Outputs, TrunkCache | None]:
    """(trunk to run on every example, outputs of the tail, cached outputs of the trunk); one of the
    outer two. `alone`: neither, and outputs of the whole base."""
    base = work.saved.base
    if alone:
        return None, outputs_of(base.model), None
    trunk, tail = split(base.model, work.saved.sites)
    outputs = outputs_of(tail, trunk)
    if trunk is None or not can_be_cached(trunk):
        return trunk, outputs, None
    sequences = [p.tokens for r in work.records for p in (*r.outer, *r.locality)]
    cache = cache_trunk(trunk, base.params, sequences, progress=work.reporter.cached)
    return None, outputs, cache


def texts_of(entry: Interview) -> dict[str, list[dict[str, str]]]:
    """An interview as JSON."""
    return {
        name: [heard._asdict() for heard in part] for name, part in entry._asdict().items()
    }

PRESETS = {
    "counterfact_500": Preset(
        {"limit": 500, "longest": 48, "batch": 20},
        "with the quickstart's editor and CounterFact's validation file: 58.9 s on two CPU cores, "
        "187.9 s with --alone, the same scores (results/evaluate_500_smollm2.json)",
    ),
}

COMMAND = Command(Evaluate, evaluate, __doc__, PRESETS)
