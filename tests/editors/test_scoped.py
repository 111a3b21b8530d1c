"""Scoped edits: the base, exactly, where none acts; where one does, that edit; in any order."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, assert_equal
from conftest import Tiny
from scoped_setting import ANSWERS, LENGTH, SITES, N, Setting, answers, make_setting

import mend_jax as mj
from mend_jax.editors.base import EditorState
from mend_jax.editors.scoped import acting, compressed, holding
from mend_jax.example import Example
from mend_jax.factors import to_dense
from mend_jax.objectives import negative_log_likelihood


@pytest.fixture(scope="module")
def setting(tiny: Tiny) -> Setting:
    return make_setting(tiny)


def one_of(rows: mj.Factors, i: int) -> mj.Factors:
    """The rows of one edit, as they are multiplied."""
    return mj.Factors(*(x[i].astype(jnp.float32) for x in rows))


def test_only_its_own_text_has_the_edit(setting: Setting):
    for texts, wanted in ((setting.edits, np.arange(N)), (setting.others, np.full(4, -1))):
        flat = jax.tree.map(lambda x: x[:, 0], texts)
        which = acting(setting.scope, setting.state.phi.scope, setting.held, flat.inputs.seen)
        np.testing.assert_array_equal(which[:, : LENGTH - ANSWERS], -1)
        for place in range(LENGTH - ANSWERS, LENGTH):  # active while its target is said
            np.testing.assert_array_equal(which[:, place], wanted)


def test_where_no_edit_acts_the_base_answers_bit_for_bit(setting: Setting):
    empty = holding().hold(jax.tree.map(lambda x: x[:0], setting.held.kept), N + 2)
    none, some = (answers(setting, held, setting.others) for held in (empty, setting.held))
    assert_equal(some, none)
    flat = jax.tree.map(lambda x: x[:, 0], setting.others)
    base = jax.jit(setting.outputs.logits)(setting.params, flat)
    np.testing.assert_allclose(none, base, atol=1e-6 * float(jnp.max(jnp.abs(base))))


def test_where_an_edit_acts_it_is_that_edit_at_those_positions(setting: Setting):
    """As the parts of an unscoped edit that act where the answer is read."""
    rows = setting.held.kept.rows
    late = [site for site in rows if site.startswith("layers_2/")]
    assert len(late) == 2 and len(rows) == 4
    silent = {s: x if s in late else jax.tree.map(jnp.zeros_like, x) for s, x in rows.items()}
    held = setting.held._replace(kept=setting.held.kept._replace(rows=silent))
    got = answers(setting, held, setting.edits)
    for i in range(N):
        flat = jax.tree.map(lambda x, i=i: x[i], setting.edits)
        edit = {site: one_of(rows[site], i) for site in late}
        base = setting.outputs.logits(setting.params, flat)
        wanted = mj.edited(setting.outputs.logits, edit)(setting.params, flat)
        assert float(jnp.max(jnp.abs(wanted - base))) > 0.01
        assert_close(got[i], wanted[0], 1e-5)


def test_a_scoped_loss_is_captured_as_that_of_the_edit_that_acts(setting: Setting):
    """The gradient on top of held edits: as with the active one applied at its positions."""
    rows = setting.held.kept.rows
    logits = setting.outputs.logits
    flat = jax.tree.map(lambda x: x[1], setting.edits)
    here = jnp.zeros((1, LENGTH), bool).at[:, LENGTH - ANSWERS :].set(True)
    late = jnp.ones((1, ANSWERS), bool)
    at = {site: late if site.startswith("layers_2/") else here for site in rows}
    edit = {site: one_of(part, 1) for site, part in rows.items()}

    def loss(after: Any) -> Any:
        return lambda params, pair: negative_log_likelihood(after(params, pair), pair.labels)

    scoped_loss = loss(setting.editor.apply(setting.state, logits, setting.held))
    got, wanted = (
        jax.jit(mj.capture(x, SITES[0]))(setting.params, flat)
        for x in (scoped_loss, loss(mj.edited(logits, edit, at)))
    )
    assert_close(got, wanted, 1e-5)
    base = jax.jit(mj.capture(loss(logits), SITES[0]))(setting.params, flat)
    assert abs(float(got[0] - base[0])) > 1e-3


def test_any_order_of_adding_and_removing_gives_the_same_answers(setting: Setting):
    hold = holding()
    kept = [jax.tree.map(lambda x, i=i: x[i], setting.held.kept) for i in range(N)]
    empty = hold.hold(jax.tree.map(lambda x: x[:0], setting.held.kept), N + 2)
    wanted = answers(setting, setting.held, setting.edits)
    for order in ((4, 2, 0, 1, 3), (1, 0, 3, 2, 4)):
        held = empty
        for i in order:
            held = hold.add(held, kept[i])
        assert_equal(answers(setting, held, setting.edits), wanted)
        without = hold.remove(held, order.index(2))
        base = answers(setting, empty, setting.edits)
        again = answers(setting, without, setting.edits)
        np.testing.assert_array_equal(again[2], base[2])
        assert_equal(again[jnp.asarray([0, 1, 3, 4])], wanted[jnp.asarray([0, 1, 3, 4])])
        assert_equal(answers(setting, hold.add(without, kept[2]), setting.edits), wanted)
    assert hold.list(setting.held).tolist() == [True] * N + [False] * 2


def test_a_padded_batch_is_one_by_one(setting: Setting):
    both = jax.tree.map(lambda *x: jnp.concatenate(x), setting.edits, setting.others)
    together = answers(setting, setting.held, both)
    alone = [
        answers(setting, setting.held, jax.tree.map(lambda x, i=i: x[i : i + 1], both))[0]
        for i in range(len(together))
    ]
    assert_close(together, jnp.stack(alone), 1e-5)


def test_rows_are_kept_in_half_the_bytes(setting: Setting):
    """Of an edit whose rows are all kept; what is lost is a part in a thousand."""
    inner = mj.gradient_editor(setting.outputs.loss, SITES[0], mj.chain(mj.rate(-0.5)))
    one = jax.tree.map(lambda x: x[0], setting.edits)
    state = EditorState(setting.state.phi.editor, setting.state.stats)
    made = inner.edit(state, setting.params, Example(one, one, one))
    for site, part in made.items():
        few = setting.held.kept.rows[site]
        assert few.u.dtype == few.delta.dtype == jnp.float16
        whole = to_dense(part)
        gap = jnp.linalg.norm(to_dense(one_of(few, 0)) - whole)
        assert 0 < gap < 1e-3 * jnp.linalg.norm(whole)


@pytest.mark.parametrize("rank", [2, 6])
def test_few_rows_are_the_nearest_matrix(rank: int):
    """To a part in a hundred; exactly, where so few rows are enough."""
    rng = np.random.default_rng(1)
    draw = rng.standard_normal((6, rank))
    u = jnp.asarray(draw @ rng.standard_normal((rank, 9)), jnp.float32)
    part = mj.Factors(u, jnp.asarray(rng.standard_normal((6, 11)), jnp.float32))
    whole = np.asarray(to_dense(part), np.float64)
    sizes = np.linalg.svd(whole, compute_uv=False)
    assert compressed(part, 6) is part
    for rows in (1, 2, 3, 5):
        few = compressed(part, rows)
        assert few.u.shape == (rows, 9) and few.delta.shape == (rows, 11)
        gap = np.linalg.norm(np.asarray(to_dense(few)) - whole)
        assert gap <= 1.01 * np.linalg.norm(sizes[rows:]) + 1e-4 * sizes[0]
    nothing = mj.Factors(jnp.zeros((6, 9)), jnp.zeros((6, 11)))
    assert not np.any(to_dense(compressed(nothing, 2)))


def test_keys_are_a_function_of_the_text_up_to_there(setting: Setting):
    rng = np.random.default_rng(2)
    states = jnp.asarray(rng.standard_normal((2, 9, 2, 24)), jnp.float32)
    keys = setting.scope.keys(setting.state.phi.scope, states)
    for cut in (1, 4, 8):
        begun = setting.scope.keys(setting.state.phi.scope, states[:, :cut])
        for part, whole in zip(begun, keys, strict=True):
            np.testing.assert_allclose(part, whole[:, :cut], atol=1e-5)
    for part in keys:
        np.testing.assert_allclose(jnp.linalg.norm(part, axis=-1), 1.0, atol=1e-4)
