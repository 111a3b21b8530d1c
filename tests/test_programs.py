"""What is called outside of jit: one program a shape, forgotten with its function."""

import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Tiny

import mend_jax as mj
from mend_jax.models.stages import Inputs

SITES = r"layers_2/mlp/(up|down)_proj"


def pair(length: int) -> mj.Pair:
    """One text, of which the last token is scored."""
    tokens = np.arange(length, dtype=np.int32)[None]
    return mj.Pair(Inputs(tokens, np.array([[length - 1]], np.int32)), np.array([[7]], np.int32))


def counted(tiny: Tiny) -> tuple[Any, list[int]]:
    """The loss of the tiny model, and a list that grows whenever Python runs it."""
    loss, runs = mj.sequence_loss(tiny.model), []

    def counting(params: Any, pair: mj.Pair) -> Any:
        runs.append(1)
        return loss(params, pair)

    return counting, runs


def test_a_second_call_runs_what_the_first_compiled(tiny: Tiny):
    """Also of another capture of the same loss, and of another edit; another shape is another."""
    loss, runs = counted(tiny)
    editor = mj.mend(loss, SITES, rank=4)
    example = mj.Example(*[pair(4)] * 3)
    state = editor.init(jax.random.key(0), tiny.params, example)
    batch = jax.tree.map(lambda x: np.stack([x, x]), example)
    state = state._replace(stats=editor.observe(state, tiny.params, batch)[0])
    ways = [
        lambda one: mj.capture(loss, SITES)(tiny.params, one),
        lambda one: editor.edit(state, tiny.params, mj.Example(one, one, one)),
        lambda one: mj.edited(loss, mj.scale(mj.capture(loss, SITES)(tiny.params, one)[1], -0.1))(
            tiny.params, one
        ),
    ]
    for way in ways:
        first, n = way(pair(4)), len(runs)
        jax.tree.map(np.testing.assert_array_equal, way(pair(4)), first)
        assert len(runs) == n
    n = len(runs)
    ways[0](pair(5))
    assert len(runs) > n


def test_what_runs_at_once_is_what_runs_in_a_program_of_ones_own(tiny: Tiny):
    loss = mj.sequence_loss(tiny.model)
    alone = mj.capture(loss, SITES)(tiny.params, pair(4))
    inside = jax.jit(lambda params, pair: mj.capture(loss, SITES)(params, pair))
    jax.tree.map(np.testing.assert_array_equal, alone, inside(tiny.params, pair(4)))


def test_it_is_forgotten_with_the_function(tiny: Tiny):
    loss, _ = counted(tiny)
    mj.capture(loss, SITES)(tiny.params, pair(4))
    alive = weakref.ref(loss)
    del loss
    gc.collect()
    assert alive() is None


def test_methods_and_arguments_that_are_no_arrays(tiny: Tiny):
    """`model.apply` is another object at each look; names and flags choose the program."""
    edit = mj.capture(mj.sequence_loss(tiny.model), SITES)(tiny.params, pair(4))[1]

    def shifted(params: Any, tokens: Any, way: str, double: bool = False) -> Any:
        x = tiny.model.apply({"params": params}, Inputs(tokens))
        x = x if way == "up" else -x
        return 2 * x if double else x

    tokens = np.arange(4, dtype=np.int32)[None]
    up = mj.edited(tiny.model.apply, edit)({"params": tiny.params}, Inputs(tokens))
    run = mj.edited(shifted, edit)
    np.testing.assert_array_equal(run(tiny.params, tokens, "up"), up)
    np.testing.assert_array_equal(run(tiny.params, tokens, "down", double=True), -2 * up)


def test_functions_that_no_program_can_hold_run_as_they_are(tiny: Tiny):
    edit = mj.capture(mj.sequence_loss(tiny.model), SITES)(tiny.params, pair(4))[1]

    def told(params: Any) -> str:
        logits = tiny.model.apply({"params": params}, tiny.model.example_inputs())
        return f"{np.asarray(logits).shape} {float(jnp.sum(logits)) > 1e9}"

    assert mj.edited(told, edit)(tiny.params).endswith("False")
    with pytest.raises(mj.SiteError, match="called none of the 2 linear layers"):
        mj.edited(lambda params: jnp.zeros(()), edit)(tiny.params)
