"""Edits that act where an answer is read: there they are felt, elsewhere the base is."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from compare import assert_close
from conftest import Tiny

import mend_jax as mj
from mend_jax.editors.answering import answering, where_answered
from mend_jax.editors.base import Editor, EditorState
from mend_jax.example import Pair
from mend_jax.models.stages import Inputs
from mend_jax.objectives import IGNORED, sequence_logits

EARLY, LATE = "layers_1/mlp/up_proj", "layers_2/mlp/up_proj"
STATE = EditorState({}, {})


def editor() -> Editor:
    return answering(mj.gradient_editor(lambda *_: jnp.zeros(()), EARLY, mj.rate()), [LATE])


def edit_of(*sites: str) -> dict[str, mj.Factors]:
    rng = np.random.default_rng(0)
    return {
        site: mj.Factors(
            jnp.asarray(rng.standard_normal((3, 24)), jnp.float32),
            jnp.asarray(rng.standard_normal((3, 46)), jnp.float32),
        )
        for site in sites
    }


def pair() -> Pair:
    """Two texts of 7 tokens; the first has two answers, the second one, and a place left over."""
    x = np.random.default_rng(1).integers(0, 61, (2, 7)).astype(np.int32)
    read = np.asarray([[4, 5], [6, 0]], np.int32)
    labels = np.asarray([[1, 2], [3, IGNORED]], np.int32)
    return Pair(Inputs(jnp.asarray(x), jnp.asarray(read)), jnp.asarray(labels))


def test_where_it_is_answered():
    wanted = np.zeros((2, 7), bool)
    wanted[0, 4:6] = wanted[1, 6] = True
    np.testing.assert_array_equal(where_answered(pair()), wanted)


def test_the_edit_is_felt_at_those_positions_alone(tiny: Tiny):
    """In the last block, as an edit that is felt everywhere; before it, the states of the other
    positions are the base's, and those that read see the edit at their own position only."""
    logits = sequence_logits(tiny.model)
    late, both = edit_of(LATE), edit_of(EARLY, LATE)
    got = editor().apply(STATE, logits, late)(tiny.params, pair())
    assert_close(got, mj.edited(logits, late)(tiny.params, pair()), 1e-5)

    def everywhere(params: Any, asked: Pair) -> Any:
        return sequence_logits(tiny.model)(params, asked._replace(inputs=asked.inputs._replace(
            read=jnp.tile(jnp.arange(7, dtype=jnp.int32), (2, 1)))))  # fmt: skip

    at = jnp.asarray(where_answered(pair()))
    by_hand = mj.edited(everywhere, both, {EARLY: at, LATE: at})(tiny.params, pair())
    got = editor().apply(STATE, logits, both)(tiny.params, pair())
    rows = jnp.take_along_axis(by_hand, pair().inputs.read[..., None], axis=1)
    assert_close(got[0], rows[0], 1e-5)
    assert_close(got[1, :1], rows[1, :1], 1e-5)
    full = mj.edited(logits, both)(tiny.params, pair())
    assert float(jnp.max(jnp.abs(full - got))) > 1e-2  # other positions matter without it
    silent = {site: jnp.zeros((2, 7), bool) for site in both}
    base = everywhere(tiny.params, pair())
    assert_close(mj.edited(everywhere, both, silent)(tiny.params, pair()), base, 1e-5)


def test_the_gradient_reaches_the_edit(tiny: Tiny):
    def loss(edit: Any) -> jax.Array:
        after = editor().apply(STATE, sequence_logits(tiny.model), edit)
        return jnp.sum(after(tiny.params, pair()))

    slopes = jax.grad(loss)(edit_of(EARLY, LATE))
    assert all(float(jnp.max(jnp.abs(x))) > 0 for x in jax.tree.leaves(slopes))
