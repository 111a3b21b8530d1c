"""The training step: it learns, it skips what is not finite, and splitting changes nothing."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compare import assert_close, assert_equal
from conftest import TINY, Tiny

import mend_jax as mj
from mend_jax.example import Example, Pair
from mend_jax.models.stages import Inputs
from mend_jax.objectives import after_trunk, after_trunk_at_once, kl_divergence
from mend_jax.training.step import edit_then_evaluate, move_by_choice, move_if, move_in_branch

SITES = r"layers_(1|2)/mlp/(up|down)_proj"
KEY = jax.random.key(7)


def examples(seed: int, batch: int) -> Example:
    """Edits to learn, scored on themselves; locality on other text."""
    rng = np.random.default_rng(seed)

    def pair() -> Pair:
        tokens = rng.integers(TINY.vocab_size, size=(batch, 2, 7)).astype(np.int32)
        read = np.broadcast_to(np.array([[1, 3, 5], [2, 4, 6]], np.int32), (batch, 2, 3))
        labels = rng.integers(TINY.vocab_size, size=(batch, 2, 3)).astype(np.int32)
        labels[:, 1, 2] = -100
        return Pair(Inputs(jnp.asarray(tokens), jnp.asarray(read)), jnp.asarray(labels))

    edit = pair()
    return Example(edit, edit, pair())


def one_of(batch: Example, index: int) -> Example:
    return jax.tree.map(lambda x: x[index], batch)


def setting(model: Any, rank: int = 13, **rates: float) -> tuple[Any, ...]:
    """(editor, objective, optimiser) over a model."""
    loss, logits = mj.sequence_loss(model), mj.sequence_logits(model)
    editor = mj.mend(loss, SITES, rank=rank, alpha=1e-2)
    return editor, mj.Objective(loss, logits), mj.editor_optimiser(**rates)


def fresh(tiny: Tiny, parts: tuple[Any, ...], batch: Example) -> mj.TrainState:
    editor, _, optimiser = parts
    init = jax.jit(partial(mj.init_state, editor, optimiser))
    return init(KEY, tiny.params, one_of(batch, 0))


def copied(tree: Any) -> Any:
    return jax.tree.map(np.array, tree)


class Ready(NamedTuple):
    """A step, compiled once for many tests; the state before it, which is handed out as a copy,
    since the step donates it; and what one step makes of that state."""

    step: Any
    start: mj.TrainState
    first: mj.TrainState
    metrics: Any

    def state(self) -> mj.TrainState:
        return jax.tree.map(jnp.array, self.start)


@pytest.fixture(scope="module")
def batch() -> Example:
    return examples(0, 4)


@pytest.fixture(scope="module")
def ready(tiny: Tiny, batch: Example) -> Ready:
    parts = setting(tiny.model, learning_rate=1e-3, alpha_learning_rate=1e-2)
    editor, *others = parts
    counted = editor._replace(observe=chex.assert_max_traces(editor.observe, n=1))
    step, start = mj.make_step(counted, *others), copied(fresh(tiny, parts, batch))
    return Ready(step, start, *copied(step(jax.tree.map(jnp.array, start), tiny.params, batch)))


def test_the_loss_goes_down(tiny: Tiny, batch: Example, ready: Ready):
    step, state = ready.step, ready.state()
    before = copied(tiny.params)
    losses = []
    for _ in range(30):
        state, metrics = step(state, tiny.params, batch)
        losses.append(float(metrics.loss))
        total = 0.1 * metrics.edit_loss + metrics.locality_loss
        np.testing.assert_allclose(metrics.loss, total, rtol=1e-5)
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert (state.step, state.skipped, state.stalled) == (30, 0, 0)
    assert_equal(tiny.params, before)


def test_one_program_for_all_batches_of_a_shape(tiny: Tiny, ready: Ready):
    state = ready.state()
    for seed in range(4):
        state, _ = ready.step(state, tiny.params, examples(seed, 4))
    with pytest.raises(AssertionError, match="traced"):  # another shape is another program
        ready.step(state, tiny.params, examples(0, 3))


def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted(
    tiny: Tiny, batch: Example, ready: Ready
):
    step = ready.step
    state, _ = step(ready.state(), tiny.params, batch)
    before = copied(state)
    broken = tiny.params | {"embedding": tiny.params["embedding"].at[:].set(jnp.nan)}
    for times in (1, 2):
        state, metrics = step(state, broken, batch)
        assert not np.isfinite(metrics.gradient_norm)
        assert (state.step, state.skipped, state.stalled) == (1 + times, times, times)
        assert_equal(state.editor, before.editor)
        assert_equal(state.optimiser, before.optimiser)
    state, metrics = step(state, tiny.params, batch)
    assert np.isfinite(metrics.gradient_norm)
    assert (state.step, state.skipped, state.stalled) == (4, 2, 0)
    counted = state.editor.stats[0]["24x46"].rows
    assert counted == 2 * before.editor.stats[0]["24x46"].rows  # the good batches', no more


def test_a_gradient_of_exactly_zero_is_counted_as_stalled(
    tiny: Tiny, batch: Example, ready: Ready
):
    """There is nothing to learn, and nothing to compare."""
    def silent(pair: Pair) -> Pair:
        return pair._replace(labels=jnp.full_like(pair.labels, -100))

    nothing = Example(batch.edit, silent(batch.outer), silent(batch.locality))
    state, metrics = ready.step(ready.state(), tiny.params, nothing)
    assert metrics.gradient_norm == 0
    assert (state.step, state.skipped, state.stalled) == (1, 0, 1)


def test_alpha_has_a_rate_of_its_own(ready: Ready):
    """Adam's first step moves each parameter by its learning rate."""
    before = ready.start.editor.phi
    moved = jax.tree.map(lambda a, b: np.abs(a - b), ready.first.editor.phi, before)
    for shift in moved[-1]["alpha"].values():
        np.testing.assert_allclose(shift, 1e-2, rtol=0.02)
    biases = [block["b"] for group in moved[1].values() for block in group["both"]]
    np.testing.assert_allclose([np.max(b) for b in biases], 1e-3, rtol=0.02)


def test_clipping_is_by_the_norm_of_all(tiny: Tiny):
    phi = ({}, {"s": jnp.full(3, 40.0)}, {"alpha": {"s": jnp.asarray(300.0)}})
    optimiser = mj.editor_optimiser(1e-5, 1e-3, clip=100.0)
    _, state = optimiser.update(phi, optimiser.init(phi), phi)
    norm = np.sqrt(3 * 40.0**2 + 300.0**2)
    first = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    values = {round(float(x.ravel()[0]), 4) for x in first}
    assert round(0.1 * 40 * 100 / norm, 4) in values  # Adam's first moment: 0.1 g, clipped
    assert round(0.1 * 300 * 100 / norm, 4) in values


def test_a_batch_is_the_mean_of_its_examples(tiny: Tiny, batch: Example, ready: Ready):
    """Given the statistics; loss and gradient both."""
    editor, objective, _ = setting(tiny.model)
    phi, stats = jax.tree.map(jnp.array, (ready.start.editor.phi, ready.first.editor.stats))
    frozen = editor._replace(
        observe=lambda s, p, e: (s.stats, jax.vmap(editor.edit, (None, None, 0))(s, p, e))
    )

    @jax.jit
    def score(phi: Any, some: Example) -> Any:
        trial = mj.EditorState(phi, stats)
        return edit_then_evaluate(frozen, objective, trial, tiny.params, some)[0]

    value = jax.jit(jax.value_and_grad(score))
    alone = [value(phi, jax.tree.map(lambda x, i=i: x[i : i + 1], batch)) for i in range(4)]
    mean = jax.tree.map(lambda *x: jnp.mean(jnp.stack(x), axis=0), *alone)
    assert_close(value(phi, batch), mean, 1e-4)


def test_observing_makes_the_edits_that_the_new_statistics_make(
    tiny: Tiny, batch: Example, ready: Ready
):
    editor, state = setting(tiny.model)[0], ready.start.editor
    stats, edits = jax.jit(editor.observe)(state, tiny.params, batch)
    edit = jax.jit(editor.edit)
    for i in range(4):
        wanted = edit(state._replace(stats=stats), tiny.params, one_of(batch, i))
        assert_close(one_of(edits, i), wanted, 1e-4)


def test_calibration_sees_every_pair_for_itself(tiny: Tiny):
    def observe(phi: Any, stats: Any, factors: Any, around: Any = None) -> Any:
        return {"edit": factors, "outer": around.outer, "locality": around.locality}

    link = mj.Link(lambda key, factors: ({}, {}), observe, lambda phi, stats, f: f, {})
    loss = mj.sequence_loss(tiny.model)
    editor = mj.gradient_editor(loss, SITES, link)
    batch = examples(0, 3)
    seen = jax.jit(editor.calibrate)(mj.EditorState({}, {}), tiny.params, batch)
    gradient = jax.jit(mj.capture(loss, SITES))
    for i in range(3):
        pairs = one_of(batch, i)._asdict()
        assert_close(one_of(seen["edit"], i), gradient(tiny.params, pairs["edit"])[1], 1e-5)
        for name in ("outer", "locality"):
            for k in range(len(pairs[name].labels)):
                pair = jax.tree.map(lambda x, k=k: x[k : k + 1], pairs[name])
                got = jax.tree.map(lambda x, i=i, k=k: x[i, k], seen[name])
                assert_close(got, gradient(tiny.params, pair)[1], 1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_a_step_with_a_trunk_is_a_step_without(
    tiny: Tiny, batch: Example, ready: Ready, cached: bool
):
    trunk, tail = mj.split(tiny.model, SITES)
    parts = setting(tail, learning_rate=1e-3, alpha_learning_rate=1e-2)
    after = jax.jit(partial(after_trunk, trunk))(tiny.params, batch)
    step = mj.make_step(*parts, trunk=None if cached else trunk)
    start = fresh(tiny, parts, after)
    state, metrics = step(start, tiny.params, after if cached else batch)
    assert_close(metrics, ready.metrics, 1e-5)
    assert_close(state.editor.stats, ready.first.editor.stats, 1e-5)
    assert_close(state.optimiser, ready.first.optimiser, 1e-4)  # gradients; steps are their signs


@pytest.mark.parametrize("longer", [0, 2])
def test_a_trunk_that_runs_once_is_one_that_runs_for_each_pair(
    tiny: Tiny, batch: Example, longer: int
):
    """Whether or not the pairs are of one length."""
    trunk, _ = mj.split(tiny.model, SITES)
    x = jnp.pad(batch.outer.inputs.x, ((0, 0), (0, 0), (0, longer)))
    outer = batch.outer._replace(inputs=batch.outer.inputs._replace(x=x))
    some = batch._replace(outer=outer, locality=jax.tree.map(lambda x: x[:, :1], batch.locality))
    at_once = jax.jit(partial(after_trunk_at_once, trunk))(tiny.params, some)
    assert_close(at_once, jax.jit(partial(after_trunk, trunk))(tiny.params, some), 1e-5)


@pytest.mark.parametrize("longer", [False, True])
def test_pairs_that_pass_together_are_scored_as_each_for_itself(
    tiny: Tiny, batch: Example, longer: bool
):
    """Losses and their gradient; where the texts are of one length, by fewer products."""
    parts = setting(tiny.model)
    editor, (loss, logits, *_), _ = parts
    state = fresh(tiny, parts, batch).editor
    if longer:
        x = jnp.pad(batch.locality.inputs.x, ((0, 0), (0, 0), (0, 2)))
        inputs = batch.locality.inputs._replace(x=x)
        batch = batch._replace(locality=batch.locality._replace(inputs=inputs))

    def total(objective: mj.Objective, phi: Any) -> Any:
        trial = state._replace(phi=phi)
        return edit_then_evaluate(editor, objective, trial, tiny.params, batch)

    ways = [
        jax.jit(jax.value_and_grad(partial(total, mj.Objective(one, logits)), has_aux=True))
        for one in (None, loss)
    ]
    together, apart = (way(state.phi) for way in ways)
    assert_close(together, apart, 1e-5)
    products = [str(way.trace(state.phi).jaxpr).count("dot_general") for way in ways]
    assert products[0] == products[1] if longer else products[0] < 0.8 * products[1]


@pytest.mark.parametrize("way", [move_if, move_in_branch, move_by_choice])
def test_every_way_of_moving_moves_only_if_finite(way: Any):
    optimiser, phi = mj.editor_optimiser(1e-3), {"alpha": jnp.ones(3), "u": jnp.ones((2, 5))}

    @jax.jit
    def after(gradient: Any) -> Any:
        def move(phi: Any, moments: Any) -> Any:
            updates, moments = optimiser.update(gradient, moments, phi)
            return optax.apply_updates(phi, updates), moments

        finite = jnp.isfinite(optax.tree.norm(gradient))
        before = (phi, optimiser.init(phi))
        wanted = move(*before)
        return way(move, finite, before), wanted, before

    moved, wanted, _ = after(jax.tree.map(lambda x: 0.3 * x, phi))
    assert_close(moved, wanted, 1e-6)
    still, _, before = after({"alpha": jnp.ones(3), "u": jnp.full((2, 5), jnp.nan)})
    assert_equal(still, before)


def test_the_kl_divergence_of_three_outcomes():
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.2, 0.2, 0.6])
    wanted = np.sum(p * np.log(p / q))
    got = kl_divergence(jnp.log(p)[None] + 3.0, jnp.log(q)[None] - 2.0)
    np.testing.assert_allclose(got, [wanted], rtol=1e-5)
