"""Scores a trained editor on any file of records, or on the project's held-out facts.

    python -m experiments.evaluate --editor runs/quickstart --records FILE --out DIR
    python -m experiments.evaluate --editor runs/quickstart --dtype int8 --out DIR

Writes results.json and scores.png; the metrics are defined in mend_jax/evaluation.py.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from experiments.command import main
from mend_jax.data.batches import LENGTHS, encode_records, shapes_of
from mend_jax.data.codec import codec_of
from mend_jax.data.formats import read_records
from mend_jax.data.reading import Reading
from mend_jax.data.trunk_cache import cache_trunk, can_be_cached
from mend_jax.editors.saved import build_editor, load_editor
from mend_jax.evaluation import make_scorer, score, summarise
from mend_jax.figures import score_bars
from mend_jax.memory import Dtype
from mend_jax.models.stages import split
from mend_jax.objectives import sequence_logits
from mend_jax.parallel import mesh_of
from mend_jax.preparation import own_records
from mend_jax.progress import Reporter
from mend_jax.results import make_results, table, write_results


@dataclass(frozen=True)
class Evaluate:
    """Options of an evaluation."""

    editor: Path
    """Directory of a trained editor."""
    out: Path
    """Directory for results.json and scores.png."""
    records: Path | None = None
    """Records to score it on: your own JSONL, or a published file of CounterFact, zsRE, FEVER or
    Wikitext generation; without it, the held-out subjects of the project's facts."""
    flip: Literal["all", "half"] = "all"
    """Edits of a FEVER file: all flip the verdict; or half do, as in the paper, and half keep what
    the model says already."""
    locality: Path | None = None
    """File of Natural Questions, whose answers must stay; takes the place of the locality that the
    records have. Only the 15 % of its questions that training leaves alone are asked."""
    localities: int = 4
    """Locality pairs of a record, drawn from --locality, or from other rows of a file that leaves
    the choice (FEVER, Wikitext generation, zsRE lines)."""
    questions: Literal["sentence", "exact"] = "sentence"
    """Questions of --locality: with a capital and a question mark, or exactly as in the file."""
    limit: int = 0
    """Score only so many records (0: all)."""
    batch: int = 8
    """Independent edits evaluated side by side."""
    longest: int = 128
    """Longest sequence in tokens; longer pairs are left out and counted."""
    longest_answer: int = 32
    """Longest target or answer in tokens; longer pairs are left out and counted."""
    dtype: Dtype | None = None
    """Of the base's weights; by default what the editor was trained with."""
    mesh: str = "1x1"
    """Devices, DATAxMODEL: edits are split over DATA, the base's weights over MODEL."""
    seed: int = 0
    """Seed of the bootstrap, and of what is drawn when records are made."""


def evaluate(config: Evaluate) -> None:
    """Loads, scores, prints, writes."""
    if (config.out / "results.json").exists():
        raise ValueError(f"{config.out} holds a results.json already: give another --out")
    mesh = mesh_of(config.mesh)
    reading = Reading(
        "validation",
        config.flip,
        config.locality,
        config.localities,
        config.questions,
        config.seed,
    )
    given = config.records and read_records(config.records, reading)  # broken files first
    saved = load_editor(config.editor, mesh=mesh, dtype=config.dtype)
    records, dataset = (
        (given, str(config.records))
        if given
        else own_records(saved.base, reading)
    )
    began = time.perf_counter()
    encoded, skipped = encode_records(
        records[: config.limit or None],
        codec_of(saved.base).pair,
        config.longest,
        config.longest_answer,
    )
    if not encoded:
        raise ValueError(f"{dataset}: no record is short enough ({skipped})")
    trunk, tail = split(saved.base.model, saved.sites)
    editor = build_editor(saved.config, tail)
    with Reporter(0) as reporter:
        cache = None
        if trunk is not None and can_be_cached(trunk):
            sequences = [p.tokens for r in encoded for p in (*r.outer, *r.locality)]
            cache = cache_trunk(
                trunk, saved.base.params, sequences, LENGTHS, progress=reporter.cached
            )
        scores = score(
            make_scorer(editor, sequence_logits(tail), None if cache is not None else trunk, mesh),
            saved.state,
            saved.base.params,
            encoded,
            shapes_of(encoded),
            cache,
            config.batch,
            reporter.scored,
        )
    options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    results = make_results(
        saved.config["editor"],
        saved.base.name,
        dataset,
        len(encoded),
        summarise(scores, config.seed),
        time.perf_counter() - began,
        options | {"left_out": skipped._asdict()},
    )
    write_results(config.out / "results.json", results)
    score_bars(config.out / "scores.png", results)
    print(table(results))


if __name__ == "__main__":
    main(Evaluate, evaluate, __doc__)
