"""Trunk and tail: together the model, over one parameter tree."""

from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, assert_equal
from conftest import Tiny
from jaxtyping import TypeCheckError

import mend_jax as mj
from mend_jax.models.llama import Llama
from mend_jax.models.stages import Inputs, abstract_params, run_trunk, sites_of


def inputs(*lead: int) -> Inputs:
    tokens = np.random.default_rng(4).integers(61, size=(*lead, 2, 7)).astype(np.int32)
    read = np.broadcast_to(np.array([[1, 6, 3], [4, 0, 2]], np.int32), (*lead, 2, 3))
    return Inputs(jnp.asarray(tokens), jnp.asarray(read))


@pytest.mark.parametrize("block", [0, 1, 2])
def test_trunk_then_tail_is_the_model(tiny: Tiny, block: int):
    trunk, tail = mj.split(tiny.model, rf"layers_({block}|2)/mlp/up_proj")
    assert trunk is not None and (trunk.stop, tail.start) == (block + 1, block + 1)
    variables = {"params": tiny.params}
    for given in (inputs(), inputs()._replace(read=None)):
        wanted = jax.jit(tiny.model.apply)(variables, given)
        carry = jax.jit(trunk.apply)(variables, given)
        assert carry.x.shape == (2, 7, 24)
        assert_close(jax.jit(tail.apply)(variables, carry), wanted, 1e-6)


def test_each_part_needs_only_its_own_blocks(tiny: Tiny):
    trunk, tail = mj.split(tiny.model, "layers_1/mlp/up_proj")
    rest = {k: v for k, v in tiny.params.items() if k != "layers_0"}
    first = {k: v for k, v in tiny.params.items() if k in ("embedding", "layers_0")}
    carry = trunk.apply({"params": first}, inputs())
    whole = tiny.model.apply({"params": tiny.params}, inputs())
    assert_close(tail.apply({"params": rest}, carry), whole, 1e-6)


def test_the_tail_refuses_tokens(tiny: Tiny):
    _, tail = mj.split(tiny.model, "layers_2/mlp/up_proj")
    with pytest.raises((TypeCheckError, flax.errors.ScopeParamShapeError)):  # shapes checked or not
        tail.apply({"params": tiny.params}, inputs())


def test_a_model_without_stages_is_all_tail():
    model = nn.Dense(3)
    assert mj.split(model, "anything") == (None, model)


def test_a_model_that_is_edited_nowhere_is_all_tail(tiny: Tiny):
    assert mj.split(tiny.model, ()) == (None, tiny.model)
    with pytest.raises(mj.SiteError):
        mj.split(tiny.model, "")  # an expression, which nothing matches


def test_the_trunk_takes_leading_axes_and_passes_no_gradient(tiny: Tiny):
    trunk, tail = mj.split(tiny.model, "layers_1/mlp/up_proj")
    many = inputs(3)
    carries = run_trunk(trunk, tiny.params, many)
    for i in range(3):
        one = jax.tree.map(lambda x, i=i: x[i], many)
        carry = jax.tree.map(lambda x, i=i: x[i], carries)
        wanted = trunk.apply({"params": tiny.params}, one)
        assert_equal(carry._replace(x=0), wanted._replace(x=0))
        assert_close(carry.x, wanted.x, 1e-6)

    def through_both(params):
        carry = run_trunk(trunk, params, inputs())
        return jnp.sum(tail.apply({"params": params}, carry) ** 2)

    gradient = jax.jit(jax.grad(through_both))(tiny.params)
    assert not any(np.any(g) for g in jax.tree.leaves(gradient["layers_0"]))
    assert all(np.any(g) for g in jax.tree.leaves(gradient["layers_1"]))


def test_a_model_that_cannot_be_remembered(tiny: Tiny):
    class Noted(Llama):
        note: Any = None

    model = Noted(tiny.model.config, note=np.zeros(1))
    with pytest.raises(TypeError):
        hash(model)
    trunk, _ = mj.split(model, "layers_1/mlp/up_proj")
    assert trunk is not None and trunk.stop == 2


def test_sites_and_shapes_are_known_without_weights(tiny: Tiny):
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), abstract_params(tiny.model))
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), tiny.params)
    assert sites_of(tiny.model, r".*/(down|up)_proj") == tuple(
        f"layers_{i}/mlp/{name}_proj" for i in range(3) for name in ("down", "up")
    )
    with pytest.raises(mj.SiteError, match="layers_7.*nearest.*layers_"):
        mj.split(tiny.model, "layers_7/mlp/up_proj")
