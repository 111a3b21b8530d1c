"""capture, edited and merge on models that are not laid out as this package's own: with boxed
parameters, of one lone layer. Either all three are right, or all say what is wrong. (Of Flax NNX:
test_nnx_layers.py.)"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from compare import assert_close
from flax.core import freeze, meta

import mend_jax as mj

X = jax.random.normal(jax.random.key(1), (5, 4))


def boxed_layer(boxing: Callable[..., Any], **more: Any) -> nn.Dense:
    return nn.Dense(3, kernel_init=boxing(nn.initializers.lecun_normal(), ("in", "out")), **more)


class Around(nn.Module):
    """A layer in a module, so that its site has a name."""

    layer: nn.Module

    def __call__(self, x: Any) -> Any:
        return nn.tanh(self.layer(x))


MODELS: dict[str, tuple[str, nn.Module]] = {
    "bare": ("layer", Around(nn.Dense(3))),
    "lone": ("", nn.Dense(3)),
    "lone without bias": ("", nn.Dense(3, use_bias=False)),
    "boxed": ("layer", Around(boxed_layer(nn.with_partitioning))),
    "boxed, logical names": ("layer", Around(boxed_layer(nn.with_logical_partitioning))),
    "lone and boxed": ("", boxed_layer(nn.with_partitioning, dtype=jnp.bfloat16)),
}


def inner(variables: Any) -> Any:
    """Without the collection around the parameters, as most code of users has them."""
    return variables["params"]


@pytest.mark.parametrize("form", [lambda v: v, freeze, inner], ids=["dict", "frozen", "inner"])
@pytest.mark.parametrize("name", MODELS)
def test_capture_edited_and_merge_agree(name: str, form: Callable[[Any], Any]):
    site, model = MODELS[name]
    variables = form(model.init(jax.random.key(0), X))

    def apply(variables: Any, x: Any) -> Any:
        return model.apply({"params": variables} if form is inner else variables, x)

    def loss(variables: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(apply(variables, x).astype(jnp.float32)))

    tolerance = 2e-2 if "and boxed" in name else 1e-5  # that layer is bfloat16
    _, edit = mj.capture(loss, at=[site])(variables, X)
    grads = meta.unbox(jax.grad(loss)(variables, X))
    grads = grads if form is inner else grads["params"]
    assert_close(mj.to_dense(edit[site]), (grads[site] if site else grads)["kernel"], tolerance)
    merged = mj.merge(variables, edit)
    assert_close(mj.edited(apply, edit)(variables, X), apply(merged, X), 10 * tolerance)
    assert jax.tree.structure(merged) == jax.tree.structure(
        variables.unfreeze() if form is freeze else variables
    )  # the boxes are where they were


def test_a_box_of_ones_own_kind_is_opened_and_closed():
    """Whatever keeps to Flax's interface of boxes, one in another too."""

    class Own(meta.Partitioned[Any]):
        """A box with another name."""

    model = nn.Dense(3)
    params = model.init(jax.random.key(0), X)["params"]
    boxed = {**params, "kernel": Own(params["kernel"], names=("in", "out"))}
    edit = mj.capture(lambda p, x: jnp.sum(model.apply({"params": p}, x)), at=[""])(boxed, X)[1]
    merged = mj.merge(boxed, edit)
    assert isinstance(merged["kernel"], Own) and merged["kernel"].names == ("in", "out")
    assert_close(merged["kernel"].value, params["kernel"] + mj.to_dense(edit[""]), 1e-6)


def test_a_stacked_kernel_in_a_box_is_refused_by_name():
    model = boxed_layer(nn.with_partitioning)
    params = model.init(jax.random.key(0), X)["params"]
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), params)
    edit = {"": mj.Factors(jnp.ones((2, 4)), jnp.ones((2, 3)))}
    with pytest.raises(mj.SiteError, match=r"shape \(2, 4, 3\)"):
        mj.merge(stacked, edit)


def test_layers_that_are_nobodys_are_told():
    """A function without any of Flax."""
    with pytest.raises(mj.SiteError, match=r"calls none at all\. Those of Linen .*Flax NNX"):
        mj.capture(lambda p, x: jnp.sum(x @ p["w"]), at="up")({"w": jnp.ones((4, 3))}, X)
    with pytest.raises(mj.SiteError, match="called none of the 1 linear layers.*Flax NNX"):
        mj.edited(lambda x: x * 2, {"up": mj.Factors(jnp.ones((2, 4)), jnp.ones((2, 3)))})(X)
