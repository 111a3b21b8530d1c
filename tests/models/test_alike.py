"""Blocks traced once: the model is the same, and whoever looks into a block sees that block."""

from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, assert_equal
from conftest import Tiny

import mend_jax as mj
from mend_jax.models.generate import generate
from mend_jax.models.stages import Inputs, sites_of

SITES = ("layers_1/mlp/up_proj",)


def inputs() -> Inputs:
    tokens = np.random.default_rng(4).integers(61, size=(2, 7)).astype(np.int32)
    return Inputs(jnp.asarray(tokens), jnp.array([[1, 6, 3], [4, 0, 2]], jnp.int32))


def logits(model: Any, params: Any, given: Inputs) -> jax.Array:
    return model.apply({"params": params}, given)


def blocks_traced(model: Any, params: Any, given: Inputs) -> list[Any]:
    """The program of each block that is one of its own within the model's."""
    equations = jax.make_jaxpr(partial(logits, model))(params, given).eqns
    return [e.params["jaxpr"] for e in equations if e.params.get("name") == "_run"]


def test_one_trace_serves_all_blocks_that_are_alike(tiny: Tiny):
    alike = tiny.model.clone(alike=True)
    whole = inputs()._replace(read=None)
    traced = blocks_traced(alike, tiny.params, whole)
    assert len(traced) == 3 and len(set(map(id, traced))) == 1
    some_read = blocks_traced(alike, tiny.params, inputs())  # the last block, at `read` alone
    assert len(some_read) == 3 and len(set(map(id, some_read))) == 2
    assert not blocks_traced(tiny.model, tiny.params, whole)


def test_layers_that_differ_are_not_alike(tiny: Tiny):
    """The second layer sees three tokens back, the others all."""
    config = replace(tiny.model.config, sliding_window=3, whole=(0, 2))
    model, whole = tiny.model.clone(config=config), inputs()._replace(read=None)
    traced = blocks_traced(model.clone(alike=True), tiny.params, whole)
    assert len(traced) == 3 and len(set(map(id, traced))) == 2 and traced[0] is traced[2]
    once = jax.jit(partial(logits, model.clone(alike=True)))(tiny.params, whole)
    assert_close(once, jax.jit(partial(logits, model))(tiny.params, whole), 1e-6)
    assert np.any(once != jax.jit(partial(logits, tiny.model))(tiny.params, whole))


def test_gradients_are_the_same(tiny: Tiny):
    def gradient(model: Any) -> Any:
        return jax.jit(jax.grad(lambda p: jnp.sum(logits(model, p, inputs()) ** 2)))(tiny.params)

    assert_close(gradient(tiny.model.clone(alike=True)), gradient(tiny.model), 1e-5)


def test_words_are_the_same(tiny: Tiny):
    given = inputs().x, jnp.array([3, 7], jnp.int32)
    plain, once = (
        jax.jit(partial(generate, model, new=5))(tiny.params, *given)
        for model in (tiny.model, tiny.model.clone(alike=True))
    )
    np.testing.assert_array_equal(once, plain)


def test_interceptions_see_their_own_blocks(tiny: Tiny):
    alike = tiny.model.clone(alike=True)
    assert sites_of(alike, ".*") == sites_of(tiny.model, ".*")

    def loss(model: Any, params: Any) -> jax.Array:
        return jnp.sum(logits(model, params, inputs()) ** 2)

    (value, factors), (wanted, wanted_factors) = (
        jax.jit(mj.capture(partial(loss, model), SITES))(tiny.params)
        for model in (alike, tiny.model)
    )
    assert_close((value, factors), (wanted, wanted_factors), 1e-5)
    edit = jax.tree.map(lambda x: 0.1 * x, factors)
    after = mj.edited(partial(loss, alike), edit)
    assert_close(jax.jit(after)(tiny.params), loss(tiny.model, mj.merge(tiny.params, edit)), 1e-5)
    traced = jax.make_jaxpr(after)(tiny.params).eqns
    names = [e.params.get("name") for e in traced]
    assert names.count("_run") == 2  # of the blocks before and after
    with pytest.raises(mj.SiteError, match="layers_7"):
        mj.capture(partial(loss, alike), "layers_7/mlp/up_proj")(tiny.params)


def test_other_peoples_interceptors_see_all_blocks(tiny: Tiny):
    """Also after the blocks were traced; and what they change is not kept."""
    alike = tiny.model.clone(alike=True)
    before = logits(alike, tiny.params, inputs())
    seen = []

    def doubled(function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.module.name != "up_proj" or context.method_name != "__call__":
            return function(*args, **kwargs)
        seen.append("/".join(context.module.path))
        return 2 * function(*args, **kwargs)

    with nn.intercept_methods(doubled):
        changed = logits(alike, tiny.params, inputs())
    assert seen == [f"layers_{i}/mlp/up_proj" for i in range(3)]
    assert np.any(changed != before)
    assert_equal(logits(alike, tiny.params, inputs()), before)


def test_intermediate_values_are_those_of_all_blocks(tiny: Tiny):
    def seen(model: Any) -> Any:
        return model.apply({"params": tiny.params}, inputs(), capture_intermediates=True)[1]

    assert_equal(seen(tiny.model.clone(alike=True)), seen(tiny.model))


def test_parameters_are_made_by_each_block_itself(tiny: Tiny):
    made = (
        jax.jit(model.init)(jax.random.key(0), inputs())
        for model in (tiny.model.clone(alike=True), tiny.model)
    )
    assert_equal(*made)
