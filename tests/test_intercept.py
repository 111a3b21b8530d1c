"""Taps: captured factors are the gradient, edited is merged, and nothing large is ever formed."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, assert_equal
from conftest import TINY, Tiny
from jax.sharding import PartitionSpec as P

import mend_jax as mj
from mend_jax.example import Example, Pair
from mend_jax.models.stages import Inputs

ALL = r"layers_\d/(self_attn|mlp)/.*_proj"
TWO = r"layers_(1|2)/mlp/(up|down)_proj"


class Residual(nn.Module):
    """Somebody's module: named in `setup`, with bias."""

    inner: int

    def setup(self):
        self.up = nn.Dense(self.inner)
        self.down = nn.Dense(9)

    def __call__(self, x):
        return x + self.down(nn.tanh(self.up(x)))


class Foreign(nn.Module):
    """A model that knows nothing of this project."""

    remat: bool = False

    def setup(self):
        self.enter = nn.Dense(9)
        self.norm = nn.LayerNorm()
        self.block = (nn.remat(Residual) if self.remat else Residual)(13)
        self.leave = nn.Dense(5, use_bias=False)

    def __call__(self, x):
        return self.leave(self.block(self.norm(self.enter(x))))


FOREIGN = ("enter", "block/down", "block/up", "leave")
FOREIGN_X = np.random.default_rng(1).standard_normal((3, 4, 7)).astype(np.float32)


def foreign_loss(model: nn.Module | None = None) -> Callable[..., jax.Array]:
    """loss(variables, x); `variables` is {"params": ...}."""
    model = model or Foreign()
    return lambda variables, x: jnp.mean(jnp.sin(model.apply(variables, x)) ** 2)


@pytest.fixture(scope="module")
def variables() -> Any:
    return Foreign().init(jax.random.key(3), FOREIGN_X)


def pair_of(seed: int, *lead: int, length: int = 7) -> Pair:
    """Two sequences, scored at three positions each (one of them not)."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(TINY.vocab_size, size=(*lead, 2, length)).astype(np.int32)
    read = np.broadcast_to(np.array([[1, 3, 5], [2, 4, 5]], np.int32), (*lead, 2, 3))
    labels = rng.integers(TINY.vocab_size, size=(*lead, 2, 3)).astype(np.int32)
    labels[..., 1, 2] = -100
    return Pair(Inputs(*map(jnp.asarray, (tokens, read))), jnp.asarray(labels))


def kernel_at(params: Any, site: str) -> Any:
    for key in (*site.split("/"), "kernel"):
        params = params[key]
    return params


def random_edit(params: Any, sites: tuple[str, ...], seed: int, size: float = 0.3) -> Any:
    rng = np.random.default_rng(seed)

    def factors(site: str) -> mj.Factors:
        d_in, d_out = kernel_at(params, site).shape
        rows = (rng.standard_normal((4, d)).astype(np.float32) for d in (d_in, d_out))
        u, delta = rows
        return mj.Factors(jnp.asarray(u), jnp.asarray(size * delta))

    return {site: factors(site) for site in sites}


TWO_SITES = tuple(f"layers_{i}/mlp/{p}_proj" for i in (1, 2) for p in ("down", "up"))

# ------------------------------------------------------------------------------- the laws


def test_captured_factors_multiply_out_to_the_gradient(tiny: Tiny):
    loss, pair = mj.sequence_loss(tiny.model), pair_of(0)
    value, captured = jax.jit(mj.capture(loss, ALL))(tiny.params, pair)
    wanted_value, gradient = jax.jit(jax.value_and_grad(loss))(tiny.params, pair)
    assert_close(value, wanted_value, 1e-6)
    assert len(captured) == 21
    for site, factors in captured.items():
        assert factors.u.dtype == factors.delta.dtype == jnp.float32
        assert_close(mj.to_dense(factors), kernel_at(gradient, site), 1e-5)


def test_captured_factors_of_a_foreign_model(variables: Any):
    loss = foreign_loss()
    value, captured = mj.capture(loss, FOREIGN)(variables, FOREIGN_X)
    wanted, gradient = jax.value_and_grad(loss)(variables, FOREIGN_X)
    assert_close(value, wanted, 1e-6)
    assert sorted(captured) == sorted(FOREIGN)
    for site, factors in captured.items():
        assert_close(mj.to_dense(factors), kernel_at(gradient["params"], site), 1e-5)
    delta = captured["block/up"].delta  # the gradient at the output, so its sum is the bias's
    assert_close(delta.sum(0), gradient["params"]["block"]["up"]["bias"], 1e-5)


def test_edited_is_merged_and_empty_is_the_base(tiny: Tiny, variables: Any):
    pair, edit = pair_of(0), random_edit(tiny.params, TWO_SITES, 1)
    logits = mj.sequence_logits(tiny.model)
    before = jax.tree.map(lambda x: np.array(x), tiny.params)
    base = jax.jit(logits)(tiny.params, pair)
    after = jax.jit(mj.edited(logits, edit))(tiny.params, pair)
    assert_close(after, jax.jit(logits)(mj.merge(tiny.params, edit), pair), 1e-5)
    assert np.max(np.abs(after - base)) > 0.1 * np.max(np.abs(base))
    assert_equal(jax.jit(mj.edited(logits, {}))(tiny.params, pair), base)
    assert_equal(tiny.params, before)  # the base is never written

    edit = random_edit(variables["params"], FOREIGN, 2)
    loss = foreign_loss()
    after = mj.edited(loss, edit)(variables, FOREIGN_X)
    assert_close(after, loss(mj.merge(variables, edit), FOREIGN_X), 1e-5)


def test_a_dense_edit_is_the_factors_multiplied_out(variables: Any):
    edit = random_edit(variables["params"], FOREIGN, 2)
    dense = {site: mj.Dense(mj.to_dense(part)) for site, part in edit.items()}
    loss = foreign_loss()
    wanted = mj.edited(loss, edit)(variables, FOREIGN_X)
    assert_close(mj.edited(loss, dense)(variables, FOREIGN_X), wanted, 1e-5)
    assert_close(mj.merge(variables, dense), mj.merge(variables, edit), 1e-6)


def test_edits_add_and_undo(variables: Any):
    a, b = (random_edit(variables["params"], FOREIGN[:2], seed) for seed in (4, 5))
    loss = foreign_loss()
    both = mj.edited(loss, mj.add(a, b))(variables, FOREIGN_X)
    assert_close(mj.edited(mj.edited(loss, a), b)(variables, FOREIGN_X), both, 1e-5)
    undone = mj.edited(loss, mj.add(a, mj.scale(a, -1.0)))(variables, FOREIGN_X)
    assert_close(undone, loss(variables, FOREIGN_X), 1e-5)


def test_capture_of_edited_is_capture_on_merged_weights(tiny: Tiny):
    loss, pair = mj.sequence_loss(tiny.model), pair_of(0)
    edit = random_edit(tiny.params, TWO_SITES, 1)
    on_edited = jax.jit(mj.capture(mj.edited(loss, edit), TWO))(tiny.params, pair)
    on_merged = jax.jit(mj.capture(loss, TWO))(mj.merge(tiny.params, edit), pair)
    assert_close(on_edited, on_merged, 2e-5)


def test_bfloat16_layers_are_edited_in_float32():
    model = nn.Dense(6, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    x = jnp.asarray(FOREIGN_X, jnp.bfloat16)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(6, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, name="only")(x)

    params = {"params": {"only": model.init(jax.random.key(0), x)["params"]}}
    edit = random_edit(params["params"], ("only",), 1)
    _, captured = mj.capture(lambda p, x: Outer().apply(p, x).sum().astype(jnp.float32), "only")(
        params, x
    )
    assert captured["only"].u.dtype == captured["only"].delta.dtype == jnp.float32
    after = mj.edited(Outer().apply, edit)(params, x)
    assert after.dtype == jnp.bfloat16
    # rounded twice, the base's product and the sum: half a unit in the last place each
    wanted = np.asarray(x, np.float32) @ (
        np.asarray(params["params"]["only"]["kernel"], np.float32) + mj.to_dense(edit["only"])
    )
    assert_close(np.asarray(after, np.float32), wanted, 2 * 2.0**-8)


# ------------------------------------------------------------------- inside JAX's transforms


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(f))])
def test_inner_jit_and_checkpoint(variables: Any, wrap: Callable[..., Any], warm: bool):
    plain = foreign_loss()
    model = wrap(lambda v, x: Foreign().apply(v, x))

    def loss(v: Any, x: Any) -> jax.Array:
        return jnp.mean(jnp.sin(model(v, x)) ** 2)

    edit = random_edit(variables["params"], FOREIGN, 2)
    if warm:
        loss(variables, FOREIGN_X), jax.grad(loss)(variables, FOREIGN_X)
    wanted = jax.jit(mj.capture(plain, FOREIGN))(variables, FOREIGN_X)
    assert_close(mj.capture(loss, FOREIGN)(variables, FOREIGN_X), wanted, 1e-5)
    assert_close(jax.jit(mj.capture(loss, FOREIGN))(variables, FOREIGN_X), wanted, 1e-5)
    wanted = jax.jit(mj.edited(plain, edit))(variables, FOREIGN_X)
    assert_close(mj.edited(loss, edit)(variables, FOREIGN_X), wanted, 1e-5)
    assert_close(jax.jit(mj.edited(loss, edit))(variables, FOREIGN_X), wanted, 1e-5)
    assert_close(loss(variables, FOREIGN_X), plain(variables, FOREIGN_X), 1e-6)


def test_nn_remat(variables: Any):
    loss, edit = foreign_loss(Foreign(remat=True)), random_edit(variables["params"], FOREIGN, 2)
    wanted = jax.jit(mj.capture(foreign_loss(), FOREIGN))(variables, FOREIGN_X)
    assert_close(mj.capture(loss, FOREIGN)(variables, FOREIGN_X), wanted, 1e-5)
    wanted = mj.edited(foreign_loss(), edit)(variables, FOREIGN_X)
    assert_close(mj.edited(loss, edit)(variables, FOREIGN_X), wanted, 1e-5)


def test_base_and_edits_alternate_over_one_jitted_model(variables: Any):
    model = jax.jit(lambda v, x: jnp.mean(Foreign().apply(v, x) ** 2))
    a, b = (random_edit(variables["params"], FOREIGN, seed) for seed in (6, 7))
    wanted = [float(model(mj.merge(variables, edit), FOREIGN_X)) for edit in (a, b, {})]
    assert len({round(value, 3) for value in wanted}) == 3
    for _ in range(5):
        values = [mj.edited(model, edit)(variables, FOREIGN_X) for edit in (a, b)]
        np.testing.assert_allclose([*values, model(variables, FOREIGN_X)], wanted, rtol=1e-5)


def test_vmap_over_edits_is_one_by_one(variables: Any):
    loss = foreign_loss()
    edits = [random_edit(variables["params"], FOREIGN, seed) for seed in range(3)]
    xs = jnp.stack([FOREIGN_X, 2 * FOREIGN_X, -FOREIGN_X])
    many = jax.tree.map(lambda *parts: jnp.stack(parts), *edits)
    for one in (
        jax.jit(lambda edit, x: mj.edited(loss, edit)(variables, x)),
        jax.jit(lambda _, x: mj.capture(loss, FOREIGN)(variables, x)),
    ):
        alone = [one(edit, x) for edit, x in zip(edits, xs, strict=True)]
        alone = jax.tree.map(lambda *parts: jnp.stack(parts), *alone)
        assert_close(jax.jit(jax.vmap(one))(many, xs), alone, 1e-5)


def test_edits_are_differentiable(variables: Any):
    """The gradient with respect to an edit is the merged kernel's, through the product."""
    edit = random_edit(variables["params"], ("block/up",), 2)
    loss = foreign_loss()
    got = jax.grad(lambda e: mj.edited(loss, e)(variables, FOREIGN_X))(edit)["block/up"]
    gradient = jax.grad(loss)(mj.merge(variables, edit), FOREIGN_X)
    g = kernel_at(gradient["params"], "block/up")
    assert_close(got.u, edit["block/up"].delta @ g.T, 1e-5)
    assert_close(got.delta, edit["block/up"].u @ g, 1e-5)


# ------------------------------------------------------------- what is not computed (jaxprs)


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, those of nested jaxprs included."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                    yield from equations(inner)


def kernel_sized(jaxpr: Any, shapes: set[tuple[int, int]]) -> list[str]:
    """Equations that put out an array with both dimensions of a kernel among its own."""
    return [
        f"{equation.primitive.name}{tuple(out.aval.shape)}"
        for equation in equations(jaxpr)
        for out in equation.outvars
        if any(d_in in out.aval.shape and d_out in out.aval.shape for d_in, d_out in shapes)
    ]


def products(jaxpr: Any) -> int:
    return Counter(equation.primitive.name for equation in equations(jaxpr))["dot_general"]


def test_no_kernel_sized_array_is_formed(tiny: Tiny):
    """Neither dW nor W + dW, nor a copy of W, in capture, edited, or the whole training step."""
    loss, logits = mj.sequence_loss(tiny.model), mj.sequence_logits(tiny.model)
    sites = r"layers_(1|2)/(self_attn|mlp)/.*_proj"
    d, f, q, kv = 24, 46, 40, 20
    shapes = {(d, f), (d, q), (d, kv)}
    pair = pair_of(0)

    whole = jax.make_jaxpr(jax.grad(loss))(tiny.params, pair)
    assert len(kernel_sized(whole, shapes)) >= 21  # the check does find what it looks for

    assert not kernel_sized(jax.make_jaxpr(mj.capture(loss, sites))(tiny.params, pair), shapes)
    edit = jax.eval_shape(lambda: mj.capture(loss, sites)(tiny.params, pair)[1])
    after = jax.make_jaxpr(lambda e, p: mj.edited(loss, e)(tiny.params, p))(edit, pair)
    assert not kernel_sized(after, shapes)

    editor = mj.mend(loss, sites, rank=13)
    optimiser = mj.editor_optimiser()
    step = mj.make_step(editor, mj.Objective(loss, logits), optimiser)
    examples = Example(pair_of(1, 5), pair_of(2, 5), pair_of(3, 5, length=11))
    one = jax.tree.map(lambda x: x[0], examples)
    state = jax.eval_shape(
        lambda: mj.init_state(editor, optimiser, jax.random.key(0), tiny.params, one)
    )
    jaxpr = jax.make_jaxpr(step)(state, tiny.params, examples)
    assert products(jaxpr) > 100
    assert not kernel_sized(jaxpr, shapes)


def test_nothing_below_the_first_site_is_differentiated(tiny: Tiny):
    """Beyond the forward pass, a site before the head costs one product: the head's gradient."""
    loss, pair = mj.sequence_loss(tiny.model), pair_of(0)
    forward = products(jax.make_jaxpr(loss)(tiny.params, pair))

    def extra(at: str) -> int:
        return products(jax.make_jaxpr(mj.capture(loss, at))(tiny.params, pair)) - forward

    assert extra("layers_2/mlp/down_proj") == 1
    assert extra("layers_2/mlp/(up|gate|down)_proj") == 2  # and down_proj's
    per_block = extra("layers_1/mlp/down_proj") - 1
    assert extra("layers_0/mlp/down_proj") == 1 + 2 * per_block


# ------------------------------------------------------------------------------------ errors


def test_unknown_sites_name_the_nearest(tiny: Tiny):
    loss = mj.sequence_loss(tiny.model)
    with pytest.raises(mj.SiteError, match=r"layers_2/mlp/up_prj.*layers_2/mlp/up_proj"):
        mj.capture(loss, "layers_2/mlp/up_prj")(tiny.params, pair_of(0))
    with pytest.raises(mj.SiteError, match=r"layers_9/mlp/up_proj.*layers_2/mlp/up_proj"):
        names = ["layers_1/mlp/up_proj", "layers_9/mlp/up_proj"]
        mj.capture(loss, names)(tiny.params, pair_of(0))


def test_other_modules_are_refused_by_class(variables: Any):
    with pytest.raises(mj.SiteError, match=r"'norm' is a LayerNorm, not a linear layer"):
        mj.capture(foreign_loss(), "norm|enter")(variables, FOREIGN_X)
    with pytest.raises(mj.SiteError, match=r"'block' is a Residual, not a linear layer"):
        mj.capture(foreign_loss(), ["block"])(variables, FOREIGN_X)


def test_edits_for_other_models_are_refused(tiny: Tiny, variables: Any):
    wide = {"enter": mj.Factors(jnp.ones((2, 8)), jnp.ones((2, 9)))}
    with pytest.raises(mj.SiteError, match=r"'enter' maps 7 to 9 .* 8 x 9"):
        mj.edited(foreign_loss(), wide)(variables, FOREIGN_X)
    with pytest.raises(mj.SiteError, match=r"'enter'.*\(7, 9\)"):
        mj.merge(variables, wide)
    elsewhere = random_edit(tiny.params, TWO_SITES, 0)
    with pytest.raises(mj.SiteError, match=r"called none of the 4 .*layers_1/mlp/down_proj"):
        mj.edited(foreign_loss(), elsewhere)(variables, FOREIGN_X)
    with pytest.raises(mj.SiteError, match=r"no kernel at 'layers_1/mlp/down_proj'"):
        mj.merge(variables, elsewhere)


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(7, name="layer")
        return layer(jnp.tanh(layer(x)))


def test_a_site_called_twice_can_be_edited_but_not_captured():
    twice = Twice().init(jax.random.key(0), FOREIGN_X)
    with pytest.raises(mj.SiteError, match="'layer' is called twice"):
        mj.capture(foreign_loss(Twice()), "layer")(twice, FOREIGN_X)
    edit = random_edit(twice["params"], ("layer",), 1)
    after = mj.edited(foreign_loss(Twice()), edit)(twice, FOREIGN_X)
    assert_close(after, foreign_loss(Twice())(mj.merge(twice, edit), FOREIGN_X), 1e-5)


def test_kernels_stacked_by_scan_are_refused():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return jnp.tanh(nn.Dense(7, name="dense")(x)), None

    class Stacked(nn.Module):
        @nn.compact
        def __call__(self, x):
            layers = nn.scan(
                Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            return layers(name="layers")(x, None)[0]

    stacked = Stacked().init(jax.random.key(0), FOREIGN_X)
    assert stacked["params"]["layers"]["dense"]["kernel"].shape == (3, 7, 7)
    with pytest.raises(mj.SiteError, match=r"'layers/dense'.*\(3, 7, 7\).*unstacked"):
        mj.capture(foreign_loss(Stacked()), "layers/dense")(stacked, FOREIGN_X)


def test_linear_sites_in_the_order_of_execution(variables: Any):
    sites = mj.linear_sites(foreign_loss(), variables, FOREIGN_X)
    assert sites == ("enter", "block/up", "block/down", "leave")


class Two(nn.Module):
    """A model of somebody else's: two layers."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(3, name="out")(jnp.tanh(nn.Dense(8, name="up")(x)))


class Mapped(nn.Module):
    """The same layers, mapped over the leading axis by Flax, with shared parameters."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        shared = {"variable_axes": {"params": None}, "split_rngs": {"params": False}}
        return nn.vmap(Two, in_axes=0, out_axes=0, **shared)(name="two")(x)


def squared(p: Any, x: Any) -> Any:
    return jnp.sum(Two().apply(p, x) ** 2)


def weighted(p: Any, x: Any, w: Any) -> Any:
    return w * jnp.sum(jax.vmap(squared, (None, 0))(p, x))


MAPPED: dict[str, Callable[..., Any]] = {
    "vmap": lambda p, x: jnp.sum(jax.vmap(squared, (None, 0))(p, x)),
    "another axis": lambda p, x: jnp.sum(jax.vmap(squared, (None, 2))(p, x)),
    "one example": lambda p, x: jnp.sum(jax.vmap(squared, (None, 0))(p, x[:1])),
    "nested": lambda p, x: jnp.sum(jax.vmap(weighted, (None, 0, 0))(p, x, jnp.arange(1.0, 4.0))),
    "jit of vmap": lambda p, x: jnp.sum(jax.jit(jax.vmap(squared, (None, 0)))(p, x)),
    "vmap of jit": lambda p, x: jnp.sum(jax.vmap(jax.jit(squared), (None, 0))(p, x)),
    "checkpoint": lambda p, x: jnp.sum(jax.vmap(jax.checkpoint(squared), (None, 0))(p, x)),
    "only what follows": lambda p, x: jnp.sum(
        jax.vmap(lambda w: w * squared(p, x))(jnp.arange(4.0))
    ),
    "a branch": lambda p, x: jax.lax.cond(
        jnp.sum(x) < 1e9, lambda: squared(p, x), lambda: jnp.zeros(())
    ),
}
LOOPED: dict[str, Callable[..., Any]] = {
    "map": lambda p, x: jnp.sum(jax.lax.map(lambda one: squared(p, one), x)),
    "map in batches": lambda p, x: jnp.sum(
        jax.lax.map(lambda one: squared(p, one), x, batch_size=2)
    ),
    "scan": lambda p, x: jax.lax.scan(lambda c, one: (c + squared(p, one), None), 0.0, x)[0],
    "fori_loop": lambda p, x: jax.lax.fori_loop(0, 3, lambda i, c: c + squared(p, x[i]), 0.0),
    "shard_map": lambda p, x: jax.shard_map(
        lambda p, x: jax.lax.psum(squared(p, x), "data"),
        mesh=mj.make_mesh(), in_specs=(P(), P("data")), out_specs=P(),
    )(p, x),
}  # fmt: skip


@pytest.fixture(scope="module")
def two() -> tuple[Any, Any]:
    """Parameters and inputs of `Two`."""
    x = jax.random.normal(jax.random.key(0), (3, 5, 7, 4))
    return Two().init(jax.random.key(1), x), x


def check_passes(loss: Any, params: Any, x: Any, sites: dict[str, tuple[str, ...]]) -> None:
    """Alone, jitted and vmapped from outside, capture is `jax.grad`, and edited is merged."""

    def kernel(tree: Any, path: tuple[str, ...]) -> Any:
        for name in ("params", *path, "kernel"):
            tree = tree[name]
        return tree

    capture = mj.capture(loss, tuple(sites))
    both = jnp.stack([x, 2 * x])
    wanted = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, both)
    many = jax.jit(jax.vmap(capture, (None, 0)))(params, both)[1]
    alone = jax.jit(capture)(params, x)[1]
    for site, path in sites.items():
        true = kernel(wanted, path)
        assert_close(jax.vmap(mj.to_dense)(many[site]), true, 1e-5)
        assert_close(mj.to_dense(alone[site]), true[0], 1e-5)
    edit = mj.scale(alone, -1e-3)
    assert_close(mj.edited(loss, edit)(params, x), loss(mj.merge(params, edit), x), 1e-5)
    assert abs(loss(params, x) - mj.edited(loss, edit)(params, x)) > 1e-3


@pytest.mark.parametrize("name", MAPPED)
def test_a_loss_that_maps_itself(two: Any, name: str):
    check_passes(MAPPED[name], *two, {"up": ("up",), "out": ("out",)})


def test_a_loss_that_maps_by_flax(two: Any):
    x = two[1]
    params = Mapped().init(jax.random.key(1), x)
    sites = {"two/up": ("two", "up"), "two/out": ("two", "out")}
    check_passes(lambda p, x: jnp.sum(Mapped().apply(p, x) ** 2), params, x, sites)


@pytest.mark.parametrize("name", LOOPED)
def test_a_loss_that_loops_is_refused_by_name_and_can_be_edited(two: Any, name: str):
    loss, (params, x) = LOOPED[name], two
    with pytest.raises(mj.SiteError, match="'up' is called inside of a (scan|shard_map)"):
        mj.capture(loss, "up")(params, x)
    edit = {"up": mj.Factors(0.1 * jnp.ones((2, 4)), jnp.ones((2, 8)))}
    assert_close(mj.edited(loss, edit)(params, x), loss(mj.merge(params, edit), x), 1e-5)
