"""One training run from options to results: what every `experiments.train_*` does.

    base and records -> tokens -> trunk outputs, cached -> fit -> best editor -> scores, once

The development slice (early stop, best checkpoint) is held out of the training records by subject.
The validation records are scored once, at the end; those whose subject was trained on are dropped.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from mend_jax.data.batches import LENGTHS, Draw, shapes_of, training_batches
from mend_jax.data.records import Record
from mend_jax.data.trunk_cache import TrunkCache, cache_trunk, can_be_cached
from mend_jax.editors.base import Editor, EditorState, Example
from mend_jax.editors.gradient import gradient_editor
from mend_jax.editors.saved import SavedEditor, check_trained, save_editor
from mend_jax.editors.summed import summed
from mend_jax.evaluation import make_scorer, score
from mend_jax.figures import score_bars, training_curve
from mend_jax.files import write_text
from mend_jax.fit import Schedule, fit
from mend_jax.links import chain, discriminant, normalize, rate, residual_mlp, unit_strength
from mend_jax.models.registry import Base, default_sites, load
from mend_jax.models.stages import sites_of, split
from mend_jax.objectives import after_trunk, sequence_logits, sequence_loss
from mend_jax.options import (
    TrainConfig,
    as_json,
    check_data,
    check_out,
    check_ranges,
)
from mend_jax.parallel import fetch, is_first, mesh_of, shard_examples, start_distributed
from mend_jax.preparation import Data, deal_facts, prepare, read_files
from mend_jax.progress import Reporter
from mend_jax.results import make_results, table, write_results
from mend_jax.scores import PROTOCOLS, summarise
from mend_jax.training import editor_optimiser, init_state, make_calibrator, make_step

CALIBRATED = 4
"""Phrasings of a record that are compared with each other before training."""


class Parts(NamedTuple):
    """An editor over the tail of a base, and the cached outputs of its trunk."""

    editor: Editor
    trunk: nn.Module | None
    tail: nn.Module
    cache: TrunkCache | None


class Run(NamedTuple):
    """A finished run: the editor over the whole base, and the content of results.json."""

    saved: SavedEditor
    results: dict[str, Any]
    validation: list[Record]


def run(config: TrainConfig, say: Callable[[str], None] = print) -> Run:
    """Trains an editor as the options say, scores it, and writes everything to `config.out`.

    Writes editor.safetensors and config.json (the editor), results.json, metrics.jsonl,
    training.png, scores.png and checkpoints/.

    Raises:
      ExperimentError: an option out of its range; `out` is not empty and `resume` not given, or
        resumed with other options.
      RecordError, WeightsError, SiteError, CheckpointError, TrainingError: as they say.
    """
    check_ranges(config)
    check_data(config)
    if config.distributed or config.address is not None:
        start_distributed(config.address, config.processes, config.process_id)
    mesh = mesh_of(config.mesh)
    if is_first():  # the others would see what the first has begun
        check_out(config)
    else:
        say = _silent
    from_files = read_files(config)  # broken files are found before any work
    base = load(config.model, mesh, config.dtype)
    began = time.perf_counter()
    raw_train, raw_validation, dataset = from_files or deal_facts(config, base)
    sites = sites_of(base.model, config.sites) if config.sites else default_sites(base)
    data = prepare(config, base, raw_train, raw_validation)
    batch = max(1, 8 // config.k)  # edits scored side by side
    say(
        f"{len(data.train)} training, {len(data.dev)} development and {len(data.validation)} "
        f"validation records; left out: {data.left_out}"
    )
    if not config.resume:  # from here on the directory is in use
        write_text(config.out / "run.json", json.dumps(as_json(config), indent=1) + "\n")
    with Reporter(config.steps, is_first()) as reporter:
        parts = make_parts(config, base, sites, data, reporter)
        shapes = shapes_of([*data.train, *data.dev], config.swap)
        loss, logits = sequence_loss(parts.tail), sequence_logits(parts.tail)
        optimiser = editor_optimiser(
            schedule_of(config, config.learning_rate),
            schedule_of(config, config.alpha_learning_rate),
        )
        trunk = None if parts.cache is not None else parts.trunk
        where: dict[str, Any] = {"mesh": mesh, "shard_editor": config.shard_editor}
        step = make_step(parts.editor, loss, logits, optimiser, config.c_edit, trunk=trunk, **where)
        scorer = make_scorer(parts.editor, logits, trunk, mesh, config.protocol)
        draw = Draw(config.outer, config.near, config.far, config.swap, config.k)

        def on_mesh(examples: Iterator[Example]) -> Iterator[Example]:
            return examples if mesh is None else (shard_examples(x, mesh) for x in examples)

        def batches(start: int) -> Iterator[Example]:
            return on_mesh(
                training_batches(
                    data.train, shapes, config.batch, config.seed, start, draw, parts.cache
                )
            )

        def develop(state: EditorState) -> dict[str, float]:
            slice_ = data.dev or data.train[:1]
            scores = score(
                scorer, state, base.params, slice_, shapes, parts.cache, batch, config.k
            )
            found = {k: v.value for k, v in summarise(scores).items()}
            edit_loss = float(np.mean(scores.edit_loss))
            total = config.c_edit * edit_loss + found.get("locality_kl", 0.0)
            shown = ("reliability", "generality", "locality_agreement", "locality_kl")
            rest = {k: found[k] for k in shown if k in found}
            return {"loss": total, "edit_loss": edit_loss} | rest

        first = next(training_batches(data.train, shapes, 1, config.seed, 0, draw, parts.cache))
        one = jax.eval_shape(
            lambda params, x: jax.tree.map(lambda x: x[0], after_trunk(trunk, params, x)),
            base.params, first,
        )  # fmt: skip
        key = jax.random.key(config.seed)
        state = init_state(parts.editor, optimiser, key, base.params, one, **where)
        if not config.resume:
            calibrate = make_calibrator(parts.editor, trunk, **where)
            widely = draw._replace(outer=CALIBRATED)
            seed = config.seed + 1
            seen = on_mesh(
                training_batches(data.train, shapes, config.batch, seed, 0, widely, parts.cache)
            )
            for number in range(config.calibrate):
                state = calibrate(state, base.params, next(seen))
                reporter.calibrated(number + 1, config.calibrate)
        schedule = Schedule(
            config.steps,
            config.log_every,
            config.evaluate_every,
            config.checkpoint_every,
            config.patience,
        )
        fitted = fit(
            step, state, base.params, batches, develop, schedule,
            config.out, config.resume, reporter.step, say,
        )  # fmt: skip
        best = fetch(fitted.progress.best)
        check_trained(best, str(config.out))
        editor = mend_editor(config, base.model, sites)
        options = as_json(config)
        save_editor(config.out, editor, best, base, sites, options)
        shapes = shapes_of(data.validation)
        scores = score(
            scorer, best, base.params, data.validation, shapes, parts.cache, batch, config.k,
            progress=reporter.scored,
        )  # fmt: skip
    metrics = summarise(scores, config.seed, config.k)
    counts = {
        "left_out": data.left_out,
        "skipped_steps": int(fitted.progress.train.skipped),
        "best_step": int(fitted.progress.best_step),
        "stopped_early": fitted.stopped_early,
    }
    results = make_results(
        "mend", config.model, dataset, PROTOCOLS[config.protocol], len(scores.success), metrics,
        time.perf_counter() - began, options | counts,
    )  # fmt: skip
    write_results(config.out / "results.json", results)
    if is_first():
        training_curve(config.out / "training.png", fitted.history)
        score_bars(config.out / "scores.png", results)
    say(table(results))
    saved = SavedEditor(editor, best, base, sites, options)
    return Run(saved, results, [record.record for record in data.validation])


def _silent(message: str) -> None:
    """For what the first process says for all."""


def mend_editor(config: TrainConfig, model: nn.Module, sites: Sequence[str]) -> Editor:
    """The run's editor over a model, or over its tail."""
    network = chain(normalize(), residual_mlp(config.rank))
    if config.ridge < 1:
        inner = chain(normalize(on="delta"), residual_mlp(config.rank), unit_strength())
        network = discriminant(inner, config.ridge)
    editor = gradient_editor(sequence_loss(model), sites, chain(network, rate(config.alpha)))
    return summed(editor) if config.at_once == "summed" else editor


def schedule_of(config: TrainConfig, peak: float) -> optax.ScalarOrSchedule:
    """Constant; or up over the first 20 steps at most, then down along a cosine to a twentieth."""
    if config.decay == "none":
        return peak
    warm_up = min(20, max(config.steps // 10, 1))
    steps = max(config.steps, warm_up + 1)
    return optax.warmup_cosine_decay_schedule(peak / 20, peak, warm_up, steps, peak / 20)


def make_parts(
    config: TrainConfig, base: Base, sites: Sequence[str], data: Data, reporter: Reporter
) -> Parts:
    """Splits the base at the sites and, if asked to, caches the trunk's outputs."""
    trunk, tail = split(base.model, sites)
    cache = None
    if trunk is not None and can_be_cached(trunk) and config.trunk_cache != "off":
        records = [*data.train, *data.dev, *data.validation]
        sequences = [p.tokens for r in records for p in (*r.outer, *r.locality)]
        directory = config.out / "trunk" if config.trunk_cache == "disk" else None
        cache = cache_trunk(trunk, base.params, sequences, LENGTHS, directory, reporter.cached)
    return Parts(mend_editor(config, tail, sites), trunk, tail, cache)
