"""One training run from options to results: what every `experiments.train_*` does.

    base and records -> tokens -> trunk outputs, cached -> fit -> best editor -> scores, once

The development slice (early stop, best checkpoint) is held out of the training records by subject.
The validation records are scored once, at the end; those whose subject was trained on are dropped.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from mend_jax.data.messages import Chat
from mend_jax.data.records import Record
from mend_jax.evaluation.metrics import PROTOCOLS, summarise
from mend_jax.models.registry import Base, default_sites, load
from mend_jax.models.stages import sites_of, split
from mend_jax.objectives import outputs_of
from mend_jax.parallel import is_first, mesh_of, start_distributed
from mend_jax.reports.figures import score_bars, training_curve
from mend_jax.reports.progress import Reporter
from mend_jax.reports.results import About, make_results, table, write_results
from mend_jax.runs.forecast import forecast, told, told_of_pass
from mend_jax.runs.given_scope import for_scope, given_scope
from mend_jax.runs.methods import Chosen, choose, editor_of, options_of, sites_for
from mend_jax.runs.options import ExperimentError, TrainConfig, as_json, check_config
from mend_jax.runs.out import State, begin, out_of, taken
from mend_jax.runs.scoping import check_can_scope, scope_lent, sites_to_scope
from mend_jax.runs.splits import Data, check_data, deal_facts, prepare, read_files, read_more
from mend_jax.runs.streaming import check_stream, parts_of, plan_of, texts_of
from mend_jax.runs.task import make_task
from mend_jax.runs.training import (
    check_together,
    first_held_out,
    score_held_out,
    train,
)
from mend_jax.saved.arrays import check_trained
from mend_jax.saved.building import build_editor
from mend_jax.saved.directory import SavedEditor, save_editor

RESULTS = "results.json"


class Run(NamedTuple):
    """A finished run: the editor over the whole base, and the content of results.json."""

    saved: SavedEditor
    results: dict[str, Any]
    validation: list[Record]


class Gathered(NamedTuple):
    """What a run works on; `began` is when the base had been loaded."""

    base: Base
    sites: tuple[str, ...]
    data: Data
    dataset: str
    began: float


def gather(config: TrainConfig, mesh: Mesh | None, say: Callable[[str], None]) -> Gathered:
    """Reads the records, loads the base, tokenises, and says how much there is.

    Raises:
      ExperimentError, RecordError, WeightsError, SiteError: as they say.
    """
    check_stream(config)
    from_files, more = read_files(config), read_more(config)  # broken ones are found before work
    parts = parts_of(config, say)
    base = load(config.model, mesh, config.dtype, None, parts, config.sites or None)
    base = base._replace(model=base.model.clone(alike=True))
    began = time.perf_counter()
    given = from_files or deal_facts(config, base, more)
    if any(isinstance(record.prompt, Chat) for record in given.train):
        base = base._replace(chat=base.chat._replace(ends=True))
    sites = sites_of(base.model, config.sites) if config.sites else default_sites(base)
    if config.scope:
        sites, stages = _to_scope(config, base, sites, say)
        if config.scope_of:  # what is wrong with it is said before anything is trained
            lent = scope_lent(config.scope_of, base, sites)
            stages = tuple(lent.config["stages"])
        base = base._replace(model=base.model.clone(keep=stages))
    data = prepare(config, base, given)
    say(
        f"{len(data.train)} training, {len(data.dev)} development and {len(data.validation)} "
        f"validation records; left out: {data.left_out}"
    )
    if parts == "tail":
        say(plan_of(base, split(base.model, sites)[0], texts_of(data)).told)
    return Gathered(base, sites, data, given.name, began)


def run(config: TrainConfig, say: Callable[[str], None] = print) -> Run | None:
    """Trains an editor as the options say, scores it, and writes everything to `config.out`.

    Writes editor.safetensors and config.json (the editor), metrics.jsonl, checkpoints/,
    training.png, scores.png and, last, results.json.

    Returns:
      The run; or None if `resume` is given, and it was finished before: that is said.

    Raises:
      OptionError: an option whose value is not allowed. ExperimentError: options that do not go
        together; `out` is not empty and `resume` not given, or resumed with other options, or
        another process works there. ValueError: no such editor.
      RecordError, WeightsError, SiteError, CheckpointError, TrainingError: as they say.
      Stopped: by a signal.
    """
    check_config(config)
    check_data(config)
    chosen = choose(config, config.editor)
    if config.distributed or config.address is not None:
        start_distributed(config.address, config.processes, config.process_id)
    mesh = mesh_of(config.mesh)
    if not is_first():
        say = _silent
    with taken(out_of(config, RESULTS), say) as state:
        return None if state == "finished" else _made(config, chosen, mesh, state, say)


def _made(
    config: TrainConfig, chosen: Chosen, mesh: Mesh | None, state: State, say: Callable[[str], None]
) -> Run:
    """The run, in a directory that is free or holds what was made of it before."""
    base, sites, data, dataset, began = gather(config, mesh, say)
    sites = sites_for(chosen, base, sites)
    if chosen.name == "mend":
        say(told(forecast(chosen.config, base, sites, data), chosen.config))
    if state == "free":
        begin(out_of(config, RESULTS))
    with Reporter(config.steps, is_first()) as reporter:
        task = make_task(config, base, sites, data, mesh, reporter)
        if task.streamed:
            say(told_of_pass(task.streamed))
        task = task._replace(config=chosen.config)
        check_together(task, chosen.method)
        made = options_of(task, chosen)
        editor = editor_of(task, chosen, made, task.outputs)
        if config.scope:
            editor = for_scope(task, editor)
        trained, of_training, history = train(task, editor, reporter, say)
        check_trained(trained, str(config.out))
        options = as_json(chosen.config)
        whole = editor_of(task, chosen, made, outputs_of(base.model))
        if config.scope:
            found = given_scope(task, SavedEditor(whole, trained, base, sites, whole.config), say)
            editor, whole, trained = build_editor(found.config, task.outputs), *found[:2]
        save_editor(config.out, whole, trained, base, sites, options)
        edit = None
        if chosen.method.together:
            (first,) = first_held_out(task, len(data.validation))
            edit = jax.jit(editor.edit)(trained, base.params, first)
        scores = score_held_out(task, editor, trained, reporter, edit)
    k = 1 if edit is not None else config.k
    counts = {"left_out": data.left_out} | of_training
    if task.streamed:
        counts["streamed"] = task.streamed._asdict()
    protocol = PROTOCOLS[config.protocol]
    about = About(config.editor, config.model, dataset, len(scores.success), protocol)
    metrics = summarise(scores, config.seed, k)
    results = make_results(about, metrics, time.perf_counter() - began, options | counts)
    if is_first():
        if history:
            training_curve(config.out / "training.png", history)
        score_bars(config.out / "scores.png", results)
    write_results(config.out / RESULTS, results)  # last: with it, the run is finished
    say(table(results))
    saved = SavedEditor(whole, trained, base, sites, options)
    return Run(saved, results, [record.record for record in data.validation])


def _to_scope(
    config: TrainConfig, base: Base, sites: tuple[str, ...], say: Callable[[str], None]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The sites, fewer where they are the default ones and leave a scope nothing to read; and the
    stages that it reads."""
    fewer = sites if config.sites else sites_to_scope(base.model, sites)
    if fewer != sites:
        say(
            f"with a scope, {len(fewer)} of the {len(sites)} default sites are edited: it reads "
            "the blocks below them"
        )
    try:
        return fewer, check_can_scope(base.model, fewer).stages
    except ValueError as error:
        raise ExperimentError(f"{error}; --no-scope trains an editor alone") from None


def _silent(message: str) -> None:
    """For what the first process says for all."""
