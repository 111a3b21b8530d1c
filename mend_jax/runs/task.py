"""Where editors are trained and scored: a base cut at its sites, records, devices, budgets.

What happens here is the same for every editing method.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from mend_jax.data.batches import Draw, Shapes, TokenRecord, shapes_of, training_batches
from mend_jax.data.trunk_cache import TrunkCache, cache_trunk, can_be_cached
from mend_jax.editors.base import Editor, EditorState
from mend_jax.evaluation.metrics import Scores, summarise
from mend_jax.evaluation.teacher_forced import make_scorer, score
from mend_jax.example import Example
from mend_jax.models.registry import Base
from mend_jax.models.stages import split
from mend_jax.objectives import Outputs, after_trunk, outputs_of
from mend_jax.parallel import shard_examples
from mend_jax.reports.progress import Reporter
from mend_jax.runs.options import TrainConfig
from mend_jax.runs.splits import Data
from mend_jax.training.loop import Fit, Schedule, fit
from mend_jax.training.step import (
    Step,
    TrainState,
    editor_optimiser,
    init_state,
    make_calibrator,
    make_step,
)

CALIBRATED = 4
"""Phrasings of a record that are compared with each other before training."""


class Setting(NamedTuple):
    """Everything but the editor.

    trunk: to be run on every example; None if its outputs are in the cache, or there is none.
    outputs: of the tail.
    """

    config: TrainConfig
    base: Base
    sites: tuple[str, ...]
    data: Data
    trunk: nn.Module | None
    outputs: Outputs
    cache: TrunkCache | None
    mesh: Mesh | None

    @property
    def side_by_side(self) -> int:
        """Edits that are scored at a time."""
        return max(1, 8 // self.config.k)


def make_setting(
    config: TrainConfig,
    base: Base,
    sites: tuple[str, ...],
    data: Data,
    mesh: Mesh | None,
    reporter: Reporter,
) -> Setting:
    """Splits the base at the sites and, if asked to, caches the trunk's outputs."""
    trunk, tail = split(base.model, sites)
    outputs = outputs_of(tail, trunk)
    cache = None
    if trunk is not None and can_be_cached(trunk) and config.trunk_cache != "off":
        records = [*data.train, *data.dev, *data.validation]
        sequences = [p.tokens for r in records for p in (*r.outer, *r.locality)]
        directory = config.out / "trunk" if config.trunk_cache == "disk" else None
        cache = cache_trunk(trunk, base.params, sequences, directory, reporter.cached)
        trunk = None
    return Setting(config, base, sites, data, trunk, outputs, cache, mesh)


def batches_of(setting: Setting, start: int, seed: int, **drawn: Any) -> Iterator[Example]:
    """Training batches from step `start` on, on the setting's devices."""
    config, data, mesh = setting.config, setting.data, setting.mesh
    draw = Draw(config.outer, config.near, config.far, config.swap, config.k)._replace(**drawn)
    shapes = shapes_of([*data.train, *data.dev], config.swap)
    made = training_batches(data.train, shapes, config.batch, seed, start, draw, setting.cache)
    return made if mesh is None else (shard_examples(x, mesh) for x in made)


def example_of(setting: Setting) -> Example:
    """Shapes of one training example, as the editor gets it."""
    first = next(batches_of(setting._replace(mesh=None), 0, setting.config.seed))
    shapes: Example = jax.eval_shape(
        lambda params, x: jax.tree.map(lambda x: x[0], after_trunk(setting.trunk, params, x)),
        setting.base.params, first,
    )  # fmt: skip
    return shapes


def start(setting: Setting, editor: Editor) -> tuple[Step, TrainState]:
    """The training step of an editor over the tail, and its fresh state."""
    config, outputs = setting.config, setting.outputs
    optimiser = editor_optimiser(
        schedule_of(config, config.learning_rate), schedule_of(config, config.alpha_learning_rate)
    )
    step = make_step(
        editor, outputs.loss, outputs.logits, optimiser, config.c_edit, trunk=setting.trunk,
        **_where(setting),
    )  # fmt: skip
    key, params = jax.random.key(config.seed), setting.base.params
    state = init_state(editor, optimiser, key, params, example_of(setting), **_where(setting))
    return step, state


def calibrated(
    setting: Setting, editor: Editor, state: TrainState, reporter: Reporter
) -> TrainState:
    """The state with the gradients of `--calibrate` batches counted into its statistics."""
    config = setting.config
    calibrate = make_calibrator(editor, setting.trunk, **_where(setting))
    seen = batches_of(setting, 0, config.seed + 1, outer=CALIBRATED)
    for number in range(config.calibrate):
        state = calibrate(state, setting.base.params, next(seen))
        reporter.calibrated(number + 1, config.calibrate)
    return state


def train(
    setting: Setting, editor: Editor, reporter: Reporter, say: Callable[[str], None]
) -> Fit:
    """Calibrates and trains an editor over the tail, as the setting's options say."""
    config, params = setting.config, setting.base.params
    step, state = start(setting, editor)
    if not config.resume:
        state = calibrated(setting, editor, state, reporter)
    schedule = Schedule(
        config.steps,
        config.log_every,
        config.evaluate_every,
        config.checkpoint_every,
        config.patience,
    )
    return fit(
        step, state, params, lambda start: batches_of(setting, start, config.seed),
        developer(setting, editor), schedule, config.out, config.resume, reporter.step, say,
    )  # fmt: skip


def developer(setting: Setting, editor: Editor) -> Callable[[EditorState], dict[str, float]]:
    """Metrics on the development slice; "loss" is the training loss there."""
    config, data = setting.config, setting.data
    shapes = shapes_of([*data.train, *data.dev], config.swap)
    scored = score_with(setting, editor)

    def develop(state: EditorState) -> dict[str, float]:
        scores = scored(state, data.dev or data.train[:1], shapes)
        found = {k: v.value for k, v in summarise(scores).items()}
        edit_loss = float(np.mean(scores.edit_loss))
        total = config.c_edit * edit_loss + found.get("locality_kl", 0.0)
        shown = ("reliability", "generality", "locality_agreement", "locality_kl")
        rest = {k: found[k] for k in shown if k in found}
        return {"loss": total, "edit_loss": edit_loss} | rest

    return develop


def score_with(setting: Setting, editor: Editor) -> Callable[..., Scores]:
    """`scored(state, records, shapes=..., progress=...)`: under the setting's protocol."""
    config = setting.config
    scorer = make_scorer(
        editor, setting.outputs.logits, setting.trunk, setting.mesh, config.protocol
    )

    def scored(
        state: EditorState,
        records: Sequence[TokenRecord],
        shapes: Shapes | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Scores:
        return score(
            scorer, state, setting.base.params, records, shapes,
            setting.cache, setting.side_by_side, config.k, progress,
        )  # fmt: skip

    return scored


def _where(setting: Setting) -> dict[str, Any]:
    return {"mesh": setting.mesh, "shard_editor": setting.config.shard_editor}


def schedule_of(config: TrainConfig, peak: float) -> optax.ScalarOrSchedule:
    """Constant; or up over the first 20 steps at most, then down along a cosine to a twentieth."""
    if config.decay == "none":
        return peak
    warm_up = min(20, max(config.steps // 10, 1))
    steps = max(config.steps, warm_up + 1)
    return optax.warmup_cosine_decay_schedule(peak / 20, peak, warm_up, steps, peak / 20)
