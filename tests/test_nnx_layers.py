"""Taps on layers of Flax NNX: the laws of test_intercept.py, on a model that its function takes
first, and beside a Linen twin with the same weights."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compare import assert_close, assert_equal
from flax import nnx
from test_intercept import equations, kernel_sized, products

import mend_jax as mj
from mend_jax.objectives import negative_log_likelihood

VOCABULARY, WIDTH, INNER = 11, 6, 10
SITES = ("block_0/down", "block_0/up", "block_1/down", "block_1/up", "head")
TOKENS = np.random.default_rng(0).integers(VOCABULARY, size=(3, 5)).astype(np.int32)


class Block(nnx.Module):
    """Of somebody's model."""

    def __init__(self, rngs: nnx.Rngs, **how: Any) -> None:
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, INNER, rngs=rngs, **how)
        self.down = nnx.Linear(INNER, WIDTH, rngs=rngs, **how)

    def __call__(self, x: Any) -> Any:
        return x + self.down(jnp.tanh(self.up(self.norm(x))))


class Reader(nnx.Module):
    """Somebody's model: nothing in it knows of this project."""

    def __init__(self, seed: int = 0, **how: Any) -> None:
        rngs = nnx.Rngs(seed)
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.block_0, self.block_1 = Block(rngs, **how), Block(rngs, **how)
        self.head = nnx.Linear(WIDTH, VOCABULARY, use_bias=False, rngs=rngs)
        for layer in (self.block_0.up, self.block_1.down):
            layer.bias[...] = jax.random.normal(rngs.params(), layer.bias.shape)

    def __call__(self, tokens: Any) -> Any:
        x = jnp.cumsum(self.embed(tokens), axis=1)
        return self.head(self.block_1(self.block_0(x)))


class LinenBlock(nn.Module):
    """`Block`, of Linen."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        inner = nn.tanh(nn.Dense(INNER, name="up")(nn.LayerNorm(name="norm")(x)))
        return x + nn.Dense(WIDTH, name="down")(inner)


class LinenReader(nn.Module):
    """`Reader`, of Linen."""

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = jnp.cumsum(nn.Embed(VOCABULARY, WIDTH, name="embed")(tokens), axis=1)
        x = LinenBlock(name="block_1")(LinenBlock(name="block_0")(x))
        return nn.Dense(VOCABULARY, use_bias=False, name="head")(x)


def loss(model: Any, tokens: Any) -> jax.Array:
    return jnp.mean(jnp.sin(model(tokens).astype(jnp.float32)) ** 2)


def twin_loss(params: Any, tokens: Any) -> jax.Array:
    return jnp.mean(jnp.sin(LinenReader().apply({"params": params}, tokens)) ** 2)


def params_of(model: nnx.Module) -> Any:
    """The same weights as Linen's parameters, whose names are the same."""
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def random_edit(model: nnx.Module, sites: tuple[str, ...] = SITES, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    layers = {"/".join(map(str, path)): x for path, x in nnx.iter_graph(model)}

    def rows(d: int) -> Any:
        return jnp.asarray(0.3 * rng.standard_normal((4, d)).astype(np.float32))

    return {site: mj.Factors(*map(rows, layers[site].kernel.shape)) for site in sites}


@pytest.fixture(scope="module")
def model() -> Reader:
    return Reader()


# ------------------------------------------------------------------------------- the laws


def test_captured_factors_are_the_gradient_and_those_of_the_twin(model: Reader):
    before = params_of(model)
    value, captured = mj.capture(loss, SITES)(model, TOKENS)
    wanted, gradient = nnx.value_and_grad(loss)(model, TOKENS)
    assert_close(value, wanted, 1e-6)
    gradient = nnx.to_pure_dict(nnx.state(gradient))
    for site, factors in captured.items():
        kernel = gradient
        for name in (*site.split("/"), "kernel"):
            kernel = kernel[name]
        assert_close(mj.to_dense(factors), kernel, 1e-5)
    bias = gradient["block_0"]["up"]["bias"]  # delta is the gradient at the output
    assert_close(captured["block_0/up"].delta.sum(0), bias, 1e-5)
    twin = mj.capture(twin_loss, SITES)(params_of(model), TOKENS)
    assert_close((value, captured), twin, 1e-6)
    assert_close(jax.jit(mj.capture(loss, r"block_\d/(up|down)|head"))(model, TOKENS), twin, 1e-6)
    assert_close(nnx.jit(mj.capture(loss, SITES))(model, TOKENS), twin, 1e-6)
    assert_equal(params_of(model), before)


def test_edited_is_merged_and_that_of_the_twin(model: Reader):
    edit, before = random_edit(model), params_of(model)
    after = mj.edited(loss, edit)(model, TOKENS)
    merged = mj.merge(model, edit)
    assert type(merged) is Reader and merged is not model
    assert_close(after, loss(merged, TOKENS), 1e-5)
    assert_close(params_of(merged), mj.merge(before, edit), 1e-6)
    assert_close(after, mj.edited(twin_loss, edit)(before, TOKENS), 1e-6)
    assert abs(after - loss(model, TOKENS)) > 0.1 * loss(model, TOKENS)
    assert_equal(params_of(model), before)  # neither written, nor another object inside
    assert model.head.dot_general is jax.lax.dot_general
    assert_equal(mj.edited(loss, {})(model, TOKENS), loss(model, TOKENS))
    dense = {site: mj.Dense(mj.to_dense(part)) for site, part in edit.items()}
    assert_close(mj.edited(loss, dense)(model, TOKENS), after, 1e-5)
    at = {site: jnp.zeros(TOKENS.shape, bool) for site in edit}
    assert_close(mj.edited(loss, edit, at)(model, TOKENS), loss(model, TOKENS), 1e-6)


def test_edits_add_and_undo_and_are_captured_over(model: Reader):
    a, b = random_edit(model), random_edit(model, SITES[1:3], 2)
    both = mj.edited(loss, mj.add(a, b))(model, TOKENS)
    assert_close(mj.edited(mj.edited(loss, a), b)(model, TOKENS), both, 1e-5)
    undone = mj.edited(loss, mj.add(a, mj.scale(a, -1.0)))(model, TOKENS)
    assert_close(undone, loss(model, TOKENS), 1e-5)
    on_edited = mj.capture(mj.edited(loss, a), SITES)(model, TOKENS)
    assert_close(on_edited, mj.capture(loss, SITES)(mj.merge(model, a), TOKENS), 2e-5)
    inner = {site.removeprefix("block_0/"): a[site] for site in SITES[:2]}

    def within(model: Any, tokens: Any) -> Any:
        """Names of the inner function are those of the module that it takes."""
        x = jnp.cumsum(model.embed(tokens), axis=1)
        x = mj.edited(lambda block, x: block(x), inner)(model.block_0, x)
        return jnp.mean(jnp.sin(model.head(model.block_1(x))) ** 2)

    only = {site: a[site] for site in SITES[:2]}
    wanted = mj.capture(loss, SITES)(mj.merge(model, only), TOKENS)
    assert_close(mj.capture(within, SITES)(model, TOKENS), wanted, 2e-5)


def test_bfloat16_layers_are_edited_in_float32():
    model = nnx.Linear(7, 6, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (4, 7)).astype(jnp.bfloat16)
    edit = random_edit(model, ("",))
    _, captured = mj.capture(lambda m, x: m(x).sum().astype(jnp.float32), [""])(model, x)
    assert captured[""].u.dtype == captured[""].delta.dtype == jnp.float32
    after = mj.edited(lambda m, x: m(x), edit)(model, x)
    assert after.dtype == jnp.bfloat16
    wanted = x.astype(jnp.float32) @ (model.kernel[...].astype(jnp.float32) + mj.to_dense(edit[""]))
    assert_close(after.astype(jnp.float32), wanted, 2 * 2.0**-8)
    assert mj.merge(model, edit).kernel[...].dtype == jnp.bfloat16


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(
    "wrap", [jax.jit, nnx.jit, jax.checkpoint, nnx.remat, lambda f: nnx.jit(nnx.remat(f))]
)
def test_inner_jit_and_remat(model: Reader, wrap: Callable[..., Any], warm: bool):
    inner = wrap(lambda model, tokens: model(tokens))

    def wrapped(model: Any, tokens: Any) -> jax.Array:
        return loss(lambda tokens: inner(model, tokens), tokens)

    a, b = random_edit(model), random_edit(model, seed=2)
    if warm:
        wrapped(model, TOKENS), nnx.grad(wrapped)(model, TOKENS)
    wanted = mj.capture(loss, SITES)(model, TOKENS)
    assert_close(mj.capture(wrapped, SITES)(model, TOKENS), wanted, 1e-5)
    assert_close(jax.jit(mj.capture(wrapped, SITES))(model, TOKENS), wanted, 1e-5)
    for edit in (a, b, a):  # in turn, over one program of the model
        wanted = loss(mj.merge(model, edit), TOKENS)
        assert_close(mj.edited(wrapped, edit)(model, TOKENS), wanted, 1e-5)
        assert_close(wrapped(model, TOKENS), loss(model, TOKENS), 1e-6)


def test_vmap_over_edits_and_over_models(model: Reader):
    edits = [random_edit(model, seed=seed) for seed in range(3)]
    texts = jnp.stack([TOKENS, TOKENS[::-1], TOKENS % 3])
    many = jax.tree.map(lambda *parts: jnp.stack(parts), *edits)
    for one in (
        lambda edit, tokens: mj.edited(loss, edit)(model, tokens),
        lambda _, tokens: mj.capture(loss, SITES)(model, tokens),
    ):
        alone = [one(edit, tokens) for edit, tokens in zip(edits, texts, strict=True)]
        alone = jax.tree.map(lambda *parts: jnp.stack(parts), *alone)
        assert_close(jax.jit(jax.vmap(one))(many, texts), alone, 1e-5)
    both = jax.tree.map(lambda *parts: jnp.stack(parts), model, Reader(1))
    found = jax.vmap(mj.capture(loss, SITES), (0, None))(both, TOKENS)
    second = jax.tree.map(lambda x: x[1], found)
    assert_close(second, mj.capture(loss, SITES)(Reader(1), TOKENS), 1e-5)


MAPPED: dict[str, Callable[..., Any]] = {
    "jax.vmap": lambda m, x: jnp.sum(jax.vmap(lambda one: loss(m, one))(x)),
    "nnx.vmap": lambda m, x: jnp.sum(nnx.vmap(loss, in_axes=(None, 0))(m, x)),
}
LOOPED: dict[str, Callable[..., Any]] = {
    "lax.map": lambda m, x: jnp.sum(jax.lax.map(lambda one: loss(m, one), x)),
    "nnx.scan": lambda m, x: jnp.sum(
        nnx.scan(lambda m, one: loss(m, one), in_axes=(None, 0), out_axes=0)(m, x)
    ),
}


@pytest.mark.parametrize("name", [*MAPPED, *LOOPED])
def test_a_loss_that_maps_or_loops(model: Reader, name: str):
    function = {**MAPPED, **LOOPED}[name]
    texts, edit = jnp.stack([TOKENS, TOKENS % 3]), random_edit(model)
    wanted = MAPPED["jax.vmap"](mj.merge(model, edit), texts)
    assert_close(mj.edited(function, edit)(model, texts), wanted, 1e-5)
    if name in LOOPED:
        with pytest.raises(mj.SiteError, match="'head' is called inside of a scan"):
            mj.capture(function, "head")(model, texts)
    else:
        wanted = mj.capture(
            lambda params, x: jnp.sum(jax.vmap(twin_loss, (None, 0))(params, x)), SITES
        )(params_of(model), texts)
        assert_close(mj.capture(function, SITES)(model, texts), wanted, 1e-5)


def test_no_kernel_sized_array_is_formed_and_nothing_below_is_differentiated(model: Reader):
    shapes = {(WIDTH, INNER), (INNER, WIDTH), (WIDTH, VOCABULARY)}
    assert kernel_sized(jax.make_jaxpr(jax.grad(loss))(model, TOKENS), shapes)
    forward = jax.make_jaxpr(loss)(model, TOKENS)
    for at, extra in ((SITES, 4), (("block_1/down",), 1), (("head",), 0)):
        jaxpr = jax.make_jaxpr(mj.capture(loss, at))(model, TOKENS)
        assert not kernel_sized(jaxpr, shapes)
        assert products(jaxpr) == products(forward) + extra
    edit = random_edit(model)
    jaxpr = jax.make_jaxpr(mj.edited(loss, edit))(model, TOKENS)
    assert not kernel_sized(jaxpr, shapes) and len(list(equations(jaxpr))) > 20


# ------------------------------------------------------------------------------- editors


def pairs(seed: int, *lead: int) -> mj.Pair:
    """Two texts each, of whose last three tokens the next are known."""
    rng = np.random.default_rng(seed)
    tokens, labels = (rng.integers(VOCABULARY, size=(*lead, 2, n)).astype(np.int32) for n in (5, 3))
    return mj.Pair(jnp.asarray(tokens), jnp.asarray(labels))


def logits_of(model: Any, pair: mj.Pair) -> jax.Array:
    return model(pair.inputs)[:, -3:]


def nll_of(model: Any, pair: mj.Pair) -> jax.Array:
    return negative_log_likelihood(logits_of(model, pair), pair.labels)


def linen(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of Linen's parameters."""
    return lambda params, pair: function(
        lambda tokens: LinenReader().apply({"params": params}, tokens), pair
    )


def trained(loss: Any, logits: Any, params: Any) -> tuple[Any, Any]:
    """What three steps leave of an editor, and the edit that it makes then."""
    # Adam's first steps are signs: a rounding, other on every CPU, would be as long as a gradient
    editor, optimiser = mj.mend(loss, SITES[:4], rank=3), optax.sgd(1e-2)
    step = mj.make_step(editor, mj.Objective(loss, logits), optimiser)
    example = mj.Example(*(pairs(seed) for seed in (7, 8, 9)))
    state = mj.init_state(editor, optimiser, jax.random.key(0), params, example)
    metrics = []
    for seed in (0, 3, 6):
        batch = mj.Example(*(pairs(seed + i, 4) for i in range(3)))
        state, metric = step(state, params, batch)
        metrics.append((metric.loss, metric.edit_loss, metric.gradient_norm))
    return (state.editor, metrics), editor.edit(state.editor, params, example)


def test_an_editor_is_trained_as_on_the_twin(model: Reader):
    before = params_of(model)
    (state, metrics), edit = trained(nll_of, logits_of, model)
    twin, twin_edit = trained(linen(nll_of), linen(logits_of), before)
    assert metrics[0][2] > 0 and metrics[0][0] != metrics[2][0]
    assert_close(edit, twin_edit, 1e-4)
    assert_close((state, metrics), twin, 1e-4)
    after, pair = mj.edited(nll_of, edit)(model, pairs(7)), pairs(7)
    assert_close(after, nll_of(mj.merge(model, edit), pair), 1e-5)
    assert float(after) != float(nll_of(model, pair))
    assert_equal(params_of(model), before)


def test_fine_tuning_is_that_of_the_twin(model: Reader):
    def tuned(wrap: Callable[..., Any], params: Any) -> Any:
        states: Any = None  # not asked for
        outputs = mj.Outputs(wrap(nll_of), wrap(logits_of), states, lambda params, pair: pair)
        editor = mj.finetune(outputs, SITES[:2], steps=3)
        example = mj.Example(*(pairs(seed) for seed in (7, 8, 9)))
        state = editor.init(jax.random.key(0), params, example)
        return jax.jit(editor.edit)(state, params, example)

    edit = tuned(lambda function: function, model)
    # RMSprop divides a gradient by its size: a rounding, another on each CPU, is of a step's size
    assert_close(edit, tuned(linen, params_of(model)), 1e-4)
    assert nll_of(mj.merge(model, edit), pairs(7)) < nll_of(model, pairs(7))


def test_grace_is_that_of_the_twin(model: Reader):
    def beside(wrap: Callable[..., Any], params: Any) -> Any:
        def logits(model: Any, pair: mj.Pair) -> jax.Array:
            tokens, read = pair.inputs.x, pair.inputs.read
            said = model(tokens)
            return said if read is None else jnp.take_along_axis(said, read[..., None], axis=1)

        states: Any = None  # not asked for
        outputs = mj.Outputs(wrap(nll_of), wrap(logits), states, lambda params, pair: pair)
        editor = mj.grace(outputs, SITES[:1], steps=3)
        read, pair = jnp.asarray([[2, 3, 4]] * 2), pairs(7)
        pair = pair._replace(inputs=mj.Inputs(pair.inputs, read))
        example = mj.Example(pair, pair, pair)
        state = editor.init(jax.random.key(0), params, example)
        edit = jax.jit(editor.edit)(state, params, example)
        return editor.apply(state, outputs.logits, edit)(params, pair), pair, outputs.logits

    after, pair, logits = beside(lambda function: function, model)
    twin = beside(linen, params_of(model))
    assert_close(after, twin[0], 1e-5)
    assert np.max(np.abs(after - logits(model, pair))) > 0.1


# --------------------------------------------------------------------- kinds of layers


class Doubled(nnx.Linear):
    """Somebody's layer, which does more than its product."""

    def __call__(self, x: Any) -> Any:
        return 2 * super().__call__(jnp.tanh(x))


def adapted(rngs: nnx.Rngs) -> nnx.Module:
    """A layer with an adapter around it."""
    return nnx.LoRA(5, 2, 4, base_module=nnx.Linear(5, 4, rngs=rngs), rngs=rngs)


def shifted(*args: Any, **kwargs: Any) -> Any:
    """A product of one's own."""
    return jnp.tanh(jax.lax.dot_general(*args, **kwargs))


KINDS: dict[str, tuple[str, Callable[[nnx.Rngs], nnx.Module]]] = {
    "its own __call__": ("", lambda rngs: Doubled(5, 4, rngs=rngs)),
    "LoRALinear": ("", lambda rngs: nnx.LoRALinear(5, 4, lora_rank=2, rngs=rngs)),
    "LoRA": ("base_module", adapted),
    "Sequential": ("layers/1", lambda rngs: nnx.Sequential(jnp.tanh, nnx.Linear(5, 4, rngs=rngs))),
    "List": ("1", lambda rngs: nnx.List([nnx.Dropout(0.5), nnx.Linear(5, 4, rngs=rngs)])),
    "partitioned": ("", lambda rngs: nnx.Linear(5, 4, rngs=rngs, kernel_metadata={"why": "told"})),
    "highest": ("", lambda rngs: nnx.Linear(5, 4, rngs=rngs, precision="highest")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_other_kinds(kind: str):
    site, make = KINDS[kind]
    model, x = make(nnx.Rngs(0, params=1)), jax.random.normal(jax.random.key(2), (3, 5))
    for part in (nnx.state(model, nnx.LoRAParam), nnx.state(model, nnx.Param)):
        nnx.update(model, jax.tree.map(lambda x: x + 0.1, part))

    def wave(model: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(model[1](x) if kind == "List" else model(x)))

    assert mj.linear_sites(wave, model, x) == (site,)
    _, captured = mj.capture(wave, [site])(model, x)
    gradient = nnx.grad(wave, argnums=nnx.DiffState(0, nnx.PathContains("kernel")))(model, x)
    (kernel,) = jax.tree.leaves(gradient)
    assert_close(mj.to_dense(captured[site]), kernel, 1e-5)
    edit = mj.scale(captured, 0.3)
    merged = mj.merge(model, edit)
    assert jax.tree.structure(nnx.state(merged)) == jax.tree.structure(nnx.state(model))
    assert_close(mj.edited(wave, edit)(model, x), wave(merged, x), 1e-5)


class Sharing(nnx.Module):
    """With one layer in two places, of which it calls some."""

    def __init__(self, called: str) -> None:
        self.first = self.second = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        self.called = called

    def __call__(self, x: Any) -> Any:
        for name in self.called.split():
            x = jnp.tanh(getattr(self, name)(x))
        return x


X = jax.random.normal(jax.random.key(1), (5, 4))


def total(model: Any, x: Any) -> Any:
    return jnp.sum(jnp.sin(model(x)))


def test_a_layer_in_two_places_is_one_and_called_twice_it_is_only_edited():
    once, twice = Sharing("second"), Sharing("first second")
    captured = mj.capture(total, "first")(once, X)[1]
    kernel = nnx.grad(total)(once, X)["first"].kernel[...]
    assert_close(mj.to_dense(captured["first"]), kernel, 1e-5)
    with pytest.raises(mj.SiteError, match=r"called 'second'; .*\['first'\]"):
        mj.capture(total, "second")(once, X)
    with pytest.raises(mj.SiteError, match="'first' is called twice"):
        mj.capture(total, "first")(twice, X)
    merged = mj.merge(twice, captured)
    assert merged.first is merged.second
    assert_close(mj.edited(total, captured)(twice, X), total(merged, X), 1e-5)


def test_what_a_model_changes_in_itself_is_left_as_it_was():
    """Counts of dropout and batch statistics, of which a second call compiles nothing."""
    rngs, runs = nnx.Rngs(0), []
    model = nnx.Sequential(
        nnx.Linear(4, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
    )
    before = jax.tree.map(np.array, nnx.state(model, nnx.Not(nnx.RngKey)))

    def counted(model: Any, x: Any) -> Any:
        runs.append(1)
        return total(model, x)

    found = mj.capture(counted, "layers/0")(model, X)
    edited = mj.edited(counted, found[1])(model, X)
    n = len(runs)
    assert_equal(mj.capture(counted, "layers/0")(model, X), found)
    assert_equal(mj.edited(counted, found[1])(model, X), edited)
    assert len(runs) == n
    assert_equal(jax.tree.map(np.array, nnx.state(model, nnx.Not(nnx.RngKey))), before)


# ------------------------------------------------------------------------------------ errors


class Other(nnx.Module):
    """With layers that are not sites."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.general = nnx.LinearGeneral(4, (2, 2), rngs=rngs)
        self.conv = nnx.Conv(4, 4, (3,), rngs=rngs)
        self.embed = nnx.Embed(4, 4, rngs=rngs)
        self.tied = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
        self.tied.kernel = self.embed.embedding
        self.unused = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.conv(self.general(self.linear(x)).reshape(x.shape))
        return self.tied(self.embed.attend(x))


def factors(d_in: int = 4, d_out: int = 4) -> mj.Factors:
    return mj.Factors(jnp.ones((2, d_in)), jnp.ones((2, d_out)))


def test_what_is_no_site_is_refused_by_name():
    model = Other()
    assert mj.linear_sites(total, model, X) == ("linear", "tied")
    for name, of in (("general", "LinearGeneral"), ("conv", "Conv"), ("", "Other")):
        with pytest.raises(mj.SiteError, match=f"'{name}' is a {of}, not a linear layer"):
            mj.capture(total, [name])(model, X)
    with pytest.raises(mj.SiteError, match=r"'unused'; the nearest names are \['tied', 'linear'\]"):
        mj.capture(total, "unused")(model, X)
    message = "the kernel of site 'tied' is also 'embed/embedding'"
    for way in (
        lambda: mj.capture(total, "tied")(model, X),
        lambda: mj.edited(total, {"tied": factors()})(model, X),
        lambda: mj.merge(model, {"tied": factors()}),
    ):
        with pytest.raises(mj.SiteError, match=message):
            way()


def test_edits_for_other_models_are_refused(model: Reader):
    wide = {"head": factors(8, 9)}
    with pytest.raises(mj.SiteError, match=r"'head' maps 6 to 11 .* 8 x 9"):
        mj.edited(loss, wide)(model, TOKENS)
    with pytest.raises(mj.SiteError, match=r"'head'.*\(6, 11\)"):
        mj.merge(model, wide)
    with pytest.raises(mj.SiteError, match=r"called none of the 1 .*'elsewhere/up'"):
        mj.edited(loss, {"elsewhere/up": factors()})(model, TOKENS)
    with pytest.raises(mj.SiteError, match=r"no kernel at 'elsewhere/up'"):
        mj.merge(model, {"elsewhere/up": factors()})


def test_kernels_stacked_by_vmap_are_refused():
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def layers(rngs: nnx.Rngs) -> nnx.Linear:
        return nnx.Linear(4, 4, rngs=rngs)

    stacked = layers(nnx.Rngs(0))

    def through(model: Any, x: Any) -> Any:
        every = nnx.scan(lambda x, m: m(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return jnp.sum(every(x, model))

    with pytest.raises(mj.SiteError, match=r"''.*\(3, 4, 4\).*unstacked"):
        mj.capture(through, [""])(stacked, X)


GLOBAL = Other()
EDIT = {"linear": factors()}


def ways(net: nnx.Module) -> dict[str, Callable[[], Any]]:
    """How a model is handed over, so that its layers cannot be told by name."""
    graph, state = nnx.split(net)

    def merged(state: Any, x: Any) -> Any:
        return nnx.merge(graph, state)(x)

    return {
        "capture, state": lambda: mj.capture(lambda s, x: jnp.sum(merged(s, x)), "up")(state, X),
        "capture, closure": lambda: mj.capture(lambda p, x: jnp.sum(net(x)), "up")({}, X),
        "capture, global": lambda: mj.capture(lambda p, x: jnp.sum(GLOBAL(x)), "up")({}, X),
        "edited, model": lambda: mj.edited(net, EDIT)(X),
        "edited, method": lambda: mj.edited(net.__call__, EDIT)(X),
        "edited, state": lambda: mj.edited(merged, EDIT)(state, X),
        "edited, closure": lambda: mj.edited(lambda x: net(x), EDIT)(X),
        "edited, second": lambda: mj.edited(lambda x, m: m(x), EDIT)(X, net),
        "merge, state": lambda: mj.merge(state, EDIT),
        "merge, graph": lambda: mj.merge((graph, state), EDIT),
        "sites": lambda: mj.linear_sites(net, X),
    }  # fmt: skip


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("way", ways(GLOBAL))
def test_a_model_that_the_function_does_not_take_is_told_by_name(way: str, counts: bool):
    """Also one that counts, which JAX cannot trace from outside."""
    net = nnx.BatchNorm(4, rngs=nnx.Rngs(0)) if counts else GLOBAL
    with pytest.raises(mj.SiteError, match=r"(Other|BatchNorm|State|GraphDef) is of Flax NNX"):
        ways(net)[way]()


def test_what_goes_wrong_in_a_model_is_its_own(model: Reader):
    """And the other module that a function refers to is told of only where it takes the place."""

    def wrong(model: Any, x: Any) -> Any:
        return model(x.astype(jnp.float32)).sum() + total(GLOBAL, X)

    with pytest.raises(ValueError, match="must be an integer"):
        mj.capture(wrong, "head")(model, TOKENS)
    with pytest.raises(mj.SiteError, match="Other is of Flax NNX"):
        mj.capture(lambda model, x: total(GLOBAL, x), "head")(model, X)
