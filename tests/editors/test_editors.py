"""Laws of every editing method, and what each of them is by its own formula."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compare import assert_close, assert_equal

import mend_jax as mj
from mend_jax.data.batches import edit_examples, shapes_of, shapes_of_edits
from mend_jax.data.codec import codec_of
from mend_jax.data.records import Locality, Record
from mend_jax.data.token_records import TokenRecord, encode_records
from mend_jax.editors.base import Editor, EditorState, no_edit
from mend_jax.editors.cache import cache
from mend_jax.editors.enn import enn, names_of, used_by
from mend_jax.editors.finetune import finetune
from mend_jax.editors.finetune_together import finetune_together
from mend_jax.editors.grace import grace
from mend_jax.editors.in_context import in_context
from mend_jax.editors.ke import ke, masked
from mend_jax.evaluation.collating import collate_records, widths
from mend_jax.evaluation.teacher_forced import make_scorer, score
from mend_jax.models.registry import Base
from mend_jax.models.stages import split
from mend_jax.objectives import (
    Outputs,
    answered,
    kl_divergence,
    outputs_of,
)
from mend_jax.training.optimiser import editor_optimiser
from mend_jax.training.state import init_state
from mend_jax.training.step import Objective, make_step

pytest_plugins = ["finished_run"]

SITES = ("layers_1/mlp/down_proj", "layers_1/mlp/up_proj")
PLACES = ("Oslo", "Rome", "Paris", "Lima")


@pytest.fixture(scope="module")
def base(tiny_files: Any) -> Base:
    return mj.load(str(tiny_files.model))


@pytest.fixture(scope="module")
def records(base: Base) -> list[TokenRecord]:
    made = [
        Record(
            f"Person {i} lives in",
            place,
            (f"The home of person {i} is",),
            (Locality(f"Person {i + 4} lives in", "Oslo", "near"),),
        )
        for i, place in enumerate(PLACES)
    ]
    return encode_records(made, codec_of(base).pair)[0]


@pytest.fixture(scope="module")
def examples(records: list[TokenRecord]) -> mj.Example:
    return collate_records([[r] for r in records], shapes_of(records), widths(records))


def one_of(examples: mj.Example, i: int) -> mj.Example:
    return jax.tree.map(lambda x: x[i], examples)


def build(kind: str, outputs: Outputs, examples: mj.Example) -> Editor:
    makers: dict[str, Callable[[], Editor]] = {
        "mend": lambda: mj.mend(outputs.loss, SITES, rank=3),
        "ft": lambda: finetune(outputs, SITES, learning_rate=1e-3, steps=3),
        "ft_kl": lambda: finetune(
            outputs, SITES, learning_rate=1e-3, steps=3, locality=examples.locality
        ),
        "ft_breadth": lambda: finetune_together(outputs, SITES, epochs=3, batch=2),
        "enn": lambda: enn(outputs, SITES),
        "ke": lambda: ke(outputs, SITES, sizes=(5, 6, 7)),
        "cache": lambda: cache(outputs, SITES),
        "grace": lambda: grace(outputs, SITES[:1], learning_rate=0.1, steps=3),
        "in_context": lambda: in_context(outputs, after=(1, 2)),
        "none": no_edit,
    }
    return makers[kind]()


KINDS = (
    "mend", "ft", "ft_kl", "ft_breadth", "enn", "ke", "cache", "grace", "in_context", "none"
)  # fmt: skip
OWN_SITES: dict[str, tuple[str, ...]] = {"grace": SITES[:1], "in_context": ()}


def ready(editor: Editor, base: Base, examples: mj.Example) -> EditorState:
    state = editor.init(jax.random.key(0), base.params, one_of(examples, 0))
    return state._replace(stats=jax.jit(editor.calibrate)(state, base.params, examples))


@pytest.mark.parametrize("kind", KINDS)
def test_edits_are_the_same_alone_beside_others_and_from_the_disk(
    base: Base, examples: mj.Example, tmp_path: Any, kind: str
):
    editor = build(kind, outputs_of(base.model), examples)
    state = ready(editor, base, examples)
    assert_equal(ready(editor, base, examples), state)
    make = jax.jit(editor.edit)
    alone = [make(state, base.params, one_of(examples, i)) for i in range(len(PLACES))]
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(alone))
    many = jax.jit(jax.vmap(editor.edit, (None, None, 0)))(state, base.params, examples)
    together = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    walked = kind.startswith("ft")  # where a gradient is rounding, RMSprop and Adam make it large
    if not walked:
        assert_close(many, together, 1e-5)
    speak = jax.jit(jax.vmap(partial(said, base, editor, state)))
    words = (speak(edits, examples.outer) for edits in (many, together))
    assert_close(*words, 1e-4 if walked else 1e-5)
    trained = jax.jit(editor.observe)(state, base.params, examples)[1]
    assert jax.tree.map(jnp.shape, trained) == jax.tree.map(jnp.shape, many)

    mj.save_editor(tmp_path, editor, state, base, OWN_SITES.get(kind, SITES))
    loaded = mj.load_editor(tmp_path, base)
    assert_equal(loaded.state, state)
    assert_equal(jax.jit(loaded.editor.edit)(state, base.params, one_of(examples, 1)), alone[1])


def test_a_site_that_is_not_there(base: Base, examples: mj.Example):
    outputs, nowhere = outputs_of(base.model), "layers_9/mlp/up_proj"
    wrong = (
        finetune(outputs, nowhere),
        finetune_together(outputs, nowhere),
        enn(outputs, nowhere),
        ke(outputs, nowhere),
    )
    for editor in wrong:
        with pytest.raises(mj.SiteError, match="no linear layer is called 'layers_9/mlp/up_proj'"):
            editor.init(jax.random.key(0), base.params, one_of(examples, 0))


def said(base: Base, editor: Editor, state: EditorState, edit: Any, pair: mj.Pair) -> Any:
    logits = outputs_of(base.model).logits
    return editor.apply(state, logits, edit)(base.params, pair)


def test_fine_tuning_ends_when_the_edit_is_answered(base: Base, examples: mj.Example):
    """It equals RMSprop by hand, step by step, until the argmax is the target."""
    outputs, rate = outputs_of(base.model), 1e-2
    editor = finetune(outputs, SITES, learning_rate=rate, steps=60)
    example = one_of(examples, 0)
    state = ready(editor, base, examples)
    edit = jax.jit(editor.edit)(state, base.params, example)
    assert answered(said(base, editor, state, edit, example.edit), example.edit.labels)[0] == 1

    @jax.jit
    def gradient(edit: Any) -> Any:
        loss = lambda e: mj.edited(outputs.loss, e)(base.params, example.edit)  # noqa: E731
        return jax.grad(loss)(edit)

    now = jax.tree.map(jnp.zeros_like, edit)
    squares = jax.tree.map(jnp.zeros_like, edit)
    speak = jax.jit(partial(said, base, editor, state))
    steps = 0
    while answered(speak(now, example.edit), example.edit.labels)[0] == 0:
        g = gradient(now)
        squares = jax.tree.map(lambda s, x: 0.99 * s + 0.01 * x**2, squares, g)
        now = jax.tree.map(
            lambda w, x, s: w - rate * x / (jnp.sqrt(s) + 1e-8), now, g, squares
        )
        steps += 1
    assert 1 < steps < 60
    assert_close(edit, now, 1e-3)


def test_locality_of_fine_tuning_holds_other_answers(base: Base, examples: mj.Example):
    outputs, example = outputs_of(base.model), one_of(examples, 0)
    other = one_of(examples, 2).locality
    moved = {}
    for name, locality in (("ft", None), ("ft_kl", examples.locality)):
        editor = finetune(
            outputs, SITES, learning_rate=3e-3, steps=60, locality=locality, c_edit=0.05
        )
        state = ready(editor, base, examples)
        edit = jax.jit(editor.edit)(state, base.params, example)
        before = outputs.logits(base.params, other)
        moved[name] = float(kl_divergence(before, said(base, editor, state, edit, other)).mean())
    assert moved["ft_kl"] < 0.8 * moved["ft"]


def test_many_edits_are_learned_together(base: Base, records: list[TokenRecord]):
    outputs = outputs_of(base.model)
    editor = finetune_together(outputs, SITES, learning_rate=1e-2, epochs=60, batch=3)
    edits = [r.edit for r in records]
    example = one_of(edit_examples([edits], shapes_of_edits(edits)), 0)
    state = editor.init(jax.random.key(0), base.params, example)
    edit = jax.jit(editor.edit)(state, base.params, example)
    found = answered(said(base, editor, state, edit, example.edit), example.edit.labels)
    np.testing.assert_array_equal(found, np.ones(len(PLACES)))


def test_ke_is_its_dense_formula():
    rng = np.random.default_rng(0)
    u, delta = rng.normal(size=(4, 3)).astype("f"), rng.normal(size=(4, 5)).astype("f")
    said = rng.normal(size=2 * 8 + 1).astype("f")
    col_a, row_a, col_b, row_b, eta = np.split(said, [3, 8, 11, 16])

    def softmax(x: Any) -> Any:
        return np.exp(x) / np.exp(x).sum()

    a, b = np.outer(col_a, softmax(row_a)), np.outer(col_b, softmax(row_b))
    wanted = 0.7 / (1 + np.exp(-eta)) * (u.T @ delta * a + b)
    u, delta, said = map(jnp.asarray, (u, delta, said))
    factored = mj.to_dense(masked(mj.Factors(u, delta), said, 0.7))
    np.testing.assert_allclose(factored, wanted, rtol=1e-5, atol=1e-6)


def test_ke_reads_the_text_and_not_its_padding(base: Base, examples: mj.Example):
    editor = build("ke", outputs_of(base.model), examples)
    state = ready(editor, base, examples)
    make, example = jax.jit(editor.edit), one_of(examples, 0)
    assert example.condition.shape[0] == 1 and (example.condition[0] == -1).any()
    edit = make(state, base.params, example)
    longer = jnp.pad(example.condition, ((0, 0), (0, 7)), constant_values=-1)
    assert_close(make(state, base.params, example._replace(condition=longer)), edit, 1e-5)
    other = example._replace(condition=examples.condition[1])
    gap = make(state, base.params, other)[SITES[0]].u - edit[SITES[0]].u
    assert np.abs(gap).max() > 1e-4
    with pytest.raises(ValueError, match="has no condition text"):
        editor.edit(state, base.params, example._replace(condition=None))
    twice = example._replace(condition=jnp.concatenate([example.condition] * 2))
    with pytest.raises(ValueError, match="one edit at a time, not 2"):
        editor.edit(state, base.params, twice)


def test_the_gradient_of_enn_is_that_of_finite_differences(base: Base, examples: mj.Example):
    """Second order, through the capture; in float64, along a random direction and along alpha."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), base.params)
        model = base.model.clone(dtype=jnp.float64)
        outputs, pairs = outputs_of(model), one_of(examples, 0)

        def loss(params: Any, pair: mj.Pair) -> Any:  # sequence_loss is in float32
            logits: Any = model.apply({"params": params}, pair.inputs)
            chosen = jnp.take_along_axis(logits, jnp.maximum(pair.labels, 0)[..., None], -1)
            nll = jax.nn.logsumexp(logits, -1) - chosen[..., 0]
            return jnp.sum(jnp.where(pair.labels >= 0, nll, 0.0))

        editor = enn(outputs._replace(loss=loss), SITES, rate=0.1)
        state = editor.init(jax.random.key(0), params, pairs)
        rng = np.random.default_rng(0)
        way = jax.tree.map(lambda x: rng.normal(size=x.shape), state.phi)

        @jax.jit
        def after(phi: Any) -> Any:
            trial = EditorState(phi, {})
            edit = editor.edit(trial, params, pairs)
            return editor.apply(trial, loss, edit)(params, pairs.outer)

        def at(t: float) -> Any:
            phi = jax.tree.map(lambda x, w: np.asarray(x, np.float64) + t * w, state.phi, way)
            return after(phi)

        phi = jax.tree.map(lambda x: np.asarray(x, np.float64), state.phi)
        slope = optax.tree.vdot(jax.grad(after)(phi), way)
        step = 1e-4
        np.testing.assert_allclose(slope, (at(step) - at(-step)) / (2 * step), rtol=1e-3)


def test_enn_learns_and_keeps_the_given_base(base: Base, examples: mj.Example):
    outputs = outputs_of(base.model)
    editor = enn(outputs, SITES)
    optimiser = editor_optimiser(3e-3, 1e-2)
    state = init_state(
        editor, optimiser, jax.random.key(0), base.params, one_of(examples, 0)
    )
    objective = Objective(outputs.loss, outputs.logits, c_edit=0.5)
    step = make_step(editor, objective, optimiser)
    losses = []
    for _ in range(8):
        state, metrics = step(state, base.params, examples)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.7 * losses[0]


def test_a_rate_of_enn_is_that_of_one_edit(base: Base, examples: mj.Example):
    tokens = np.sum(np.asarray(examples.edit.labels) >= 0, axis=(1, 2))
    chosen = np.flatnonzero(tokens == tokens[0])  # as many in the mean of each
    assert len(chosen) > 1
    editor = enn(outputs_of(base.model), SITES)
    state = ready(editor, base, examples)
    make = jax.jit(editor.edit)
    alone = [make(state, base.params, one_of(examples, i)) for i in chosen]
    pairs = jax.tree.map(lambda x: x[chosen, 0], examples.edit)
    together = make(state, base.params, examples._replace(edit=pairs))
    for site, part in together.items():
        wanted = sum(mj.to_dense(edit[site]) for edit in alone)
        assert_close(mj.to_dense(part), wanted, 1e-5)
        assert mj.norm(part) > 1e-3


def test_enn_over_a_tail_trains_what_the_tail_uses(base: Base, examples: mj.Example):
    tail = outputs_of(split(base.model, SITES)[1])
    carry = jax.eval_shape(
        lambda p, x: split(base.model, SITES)[0].apply({"params": p}, x.edit.inputs),
        base.params, one_of(examples, 0),
    )  # fmt: skip
    example = one_of(examples, 0)
    pair = example.edit._replace(inputs=carry)
    used = used_by(tail, base.params, mj.Example(pair, pair, pair))
    assert not any(name.startswith("layers_0") for name in used)
    assert {name for name in names_of(base.params) if name.startswith("layers_1")} <= set(used)


def test_enn_refuses_int8(tiny_files: Any, examples: mj.Example):
    small = mj.load(str(tiny_files.model), dtype="int8")
    editor = enn(outputs_of(small.model), SITES)
    with pytest.raises(ValueError, match=r"ENN trains the base, and .* has int8 numbers"):
        editor.init(jax.random.key(0), small.params, one_of(examples, 0))


def test_the_cache_answers_within_its_radius_and_nowhere_else(base: Base, examples: mj.Example):
    outputs = outputs_of(base.model)
    example, other = one_of(examples, 0), one_of(examples, 1)
    states = jax.jit(outputs.states)
    gap = float(jnp.linalg.norm(
        states(base.params, example.edit) - states(base.params, other.edit)
    ))  # fmt: skip
    assert gap > 0
    for epsilon, reached in ((0.5 * gap, False), (2 * gap, True)):
        editor = cache(outputs, epsilon=epsilon)
        state = ready(editor, base, examples)
        edit = jax.jit(editor.edit)(state, base.params, example)
        own = said(base, editor, state, edit, example.edit)
        assert answered(own, example.edit.labels)[0] == 1
        there = said(base, editor, state, edit, other.edit)
        stored = np.asarray(example.edit.labels)
        assert bool(answered(there, stored)[0]) == reached
        if not reached:
            assert_equal(there, outputs.logits(base.params, other.edit))
    with pytest.raises(ValueError, match="it cannot be applied to a function that returns"):
        editor.apply(state, outputs.loss, edit)(base.params, example.edit)


def test_states_of_a_prompt_do_not_see_its_answer_or_padding(base: Base):
    states = jax.jit(outputs_of(base.model).states)
    codec = codec_of(base)
    found = []
    for target in ("Oslo", "Lima"):
        pair = codec.pair("Person 3 lives in", target)
        example = one_of(edit_examples([[pair]], shapes_of_edits([pair])), 0)
        found.append(states(base.params, example.edit))
    assert_close(found[1], found[0], 1e-5)


def test_scores_of_no_edit_are_those_of_the_base(base: Base, records: list[TokenRecord]):
    editor, logits = no_edit(), outputs_of(base.model).logits
    scores = score(make_scorer(editor, logits), EditorState({}, {}), base.params, records)
    assert_equal(scores.success, scores.success_before)
    assert np.all(scores.agreement == 1)
