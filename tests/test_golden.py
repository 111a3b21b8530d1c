"""The authors' numbers: seven editors, two training steps, recorded from the original code.

`golden/mend_reference.npz` was recorded from github.com/eric-mitchell/mend @ e04fdb9 (PyTorch) on
a random GPT-2 of 3 layers, with both edits of a batch made jointly; the editors' parameters are off
the identity. Batches and captured rows are the same for all variants, and stored once.
"""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close
from gpt2 import GPT2

import mend_jax as mj
from mend_jax.editors.base import EditorState
from mend_jax.example import Example, Pair
from mend_jax.factors import live
from mend_jax.links import Link
from mend_jax.objectives import negative_log_likelihood
from mend_jax.training.step import edit_then_evaluate

SITES = r"h_(1|2)/mlp/c_(fc|proj)"
VARIANTS: dict[str, dict[str, Any]] = {  # arguments of residual_mlp
    "default": {},
    "noshare": {"shared": False},
    "nonorm": {},
    "xavier": {"identity": False},
    "xonly": {"on": "u"},
    "donly": {"on": "delta"},
    "onesided": {"on": "smaller"},
}
STEPS = (0, 1)


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / "mend_reference.npz") as file:
        return {name: file[name] for name in file.files}


@cache
def base_params() -> dict[str, Any]:
    """The base's weights in Linen's tree: `h.1.mlp.c_fc.weight` is h_1/mlp/c_fc/kernel."""
    params: dict[str, Any] = {}
    for name, array in golden().items():
        if not name.startswith("base/transformer."):
            continue
        *path, leaf = name.removeprefix("base/transformer.").replace("h.", "h_").split(".")
        if path in (["wte"], ["wpe"]):
            params[path[0]] = jnp.asarray(array)
            continue
        node = params
        for key in path:
            node = node.setdefault(key, {})
        kind = "scale" if path[-1].startswith("ln_") else "kernel"
        node[kind if leaf == "weight" else "bias"] = jnp.asarray(array)
    return params


def logits(params: Any, pair: Pair) -> jax.Array:
    return GPT2().apply({"params": params}, *pair.inputs)


def loss(params: Any, pair: Pair) -> jax.Array:
    """Position t predicts token t + 1."""
    return negative_log_likelihood(logits(params, pair)[:, :-1], pair.labels[:, 1:])


@cache
def example(step: int) -> Example:
    """The batch: one example, both of whose edits are made jointly."""

    def pair(name: str) -> Pair:
        ids, mask, labels = (
            golden()[f"step{step}/batch/{name}/{key}"].astype(np.int32)
            for key in ("input_ids", "attention_mask", "labels")
        )
        return Pair((ids, mask), labels)

    return Example(pair("edit_inner"), pair("edit_outer"), pair("loc"))


def chain_of(variant: str, order: str) -> Link:
    shared = VARIANTS[variant].get("shared", True)
    first = [] if variant == "nonorm" else [mj.normalize(shared, order)]
    mlp = mj.residual_mlp(rank=6, **VARIANTS[variant])
    return mj.chain(*first, mlp, mj.rate(descent=False))  # the authors' code adds


def authors_site(site: str) -> str:
    return f"transformer.{site.replace('h_', 'h.').replace('/', '.')}.weight"


def authors_group(group: str) -> str:
    """'8x12' is '(8, 12)'; an unshared site is its name with # for dots."""
    if "/" in group:
        return authors_site(group).replace(".", "#")
    return f"({group.replace('x', ', ')})"


def authors_parameter(path: tuple[Any, ...]) -> tuple[str, Any]:
    """The authors' name of a leaf of phi, and which part of that array it is."""
    keys = [key.key if hasattr(key, "key") else key.idx for key in path[1:]]
    if keys[0] == "alpha":
        index = list(golden()["inner_params"]).index(authors_site(keys[1]))
        return "edit_lrs", index
    group, side, layer, leaf = keys
    net = {"both": "mlp", "u": "mlp1", "delta": "mlp2"}[side]
    leaf = {
        "U": "u",
        "V": "v",
        "b": "bias",
        "scale": "mode_scale.weight",
        "shift": "mode_shift.weight",
    }[leaf]
    return f"{authors_group(group)}.{net}.layers.{layer}.{leaf}", ...


def from_authors(prefix: str, phi: Any) -> Any:
    """A tree like phi, with the recorded arrays under `prefix`; every one of them is used."""
    used = set()

    def look_up(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        name, part = authors_parameter(path)
        used.add(f"{prefix}/{name}")
        return jnp.asarray(golden()[f"{prefix}/{name}"][part])

    tree = jax.tree_util.tree_map_with_path(look_up, phi)
    assert used == {name for name in golden() if name.startswith(f"{prefix}/")}
    return tree


class Run(NamedTuple):
    """Both steps of one variant through the library."""

    variant: str
    state: EditorState  # after both
    losses: list[Any]
    gradients: list[Any]
    stats: list[Any]


@pytest.fixture(scope="module", params=VARIANTS)
def run(request: pytest.FixtureRequest) -> Run:
    variant = request.param
    params = base_params()
    editor = mj.gradient_editor(loss, SITES, chain_of(variant, "site"))
    state = editor.init(jax.random.key(0), params, example(0))
    state = state._replace(phi=from_authors(f"{variant}/editor", state.phi))

    @jax.jit
    def step(state: EditorState, examples: Example) -> Any:
        def objective(phi: Any) -> Any:
            trial = state._replace(phi=phi)
            return edit_then_evaluate(editor, mj.Objective(loss, logits), trial, params, examples)

        return jax.grad(objective, has_aux=True)(state.phi)

    losses, gradients, stats = [], [], []
    for number in STEPS:
        one = jax.tree.map(lambda x: x[None], example(number))
        gradient, (values, new) = step(state, one)
        state = state._replace(stats=new)
        losses.append(values)
        gradients.append(gradient)
        stats.append(new)
    return Run(variant, state, losses, gradients, stats)


def test_the_base_is_read_whole():
    inputs, params = example(0).edit.inputs, base_params()
    shapes = jax.eval_shape(lambda: GPT2().init(jax.random.key(0), *inputs)["params"])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda x: x.shape, shapes)


def test_rows():
    capture = jax.jit(mj.capture(loss, SITES))
    for step in STEPS:
        _, captured = capture(base_params(), example(step).edit)
        # sites of one shape share an editor, one row of its tables each: the order is part of it
        assert [authors_site(site) for site in captured] == list(golden()["inner_params"])
        for site, factors in captured.items():
            prefix = f"step{step}/rows/{authors_site(site)}"
            rows = [golden()[f"{prefix}/{side}"] for side in ("u", "delta")]
            u, delta = (side.reshape(-1, side.shape[-1]) for side in rows)
            keep = np.asarray(live(factors))
            np.testing.assert_array_equal(keep, np.any(u != 0, -1) & np.any(delta != 0, -1))
            assert_close(factors.u[keep], u[keep], 1e-5)
            assert_close(factors.delta[keep], delta[keep], 1e-5)


def test_losses(run: Run):
    for step in STEPS:
        prefix = f"{run.variant}/step{step}"
        l_edit, l_loc = golden()[f"{prefix}/l_edit"], golden()[f"{prefix}/l_loc"]
        assert_close(run.losses[step].edit, l_edit, 1e-5)
        # a KL is the difference of log-probabilities near 3, each rounded to 2e-7
        np.testing.assert_allclose(run.losses[step].locality, l_loc, rtol=1e-5, atol=1e-7)
        assert_close(run.losses[step].total, 0.1 * l_edit + l_loc, 1e-5)


def test_statistics(run: Run):
    if run.variant == "nonorm":
        assert not jax.tree.leaves(run.stats)  # they count rows but do not use them
        return
    for step in STEPS:
        groups = run.stats[step][0]
        recorded = {n for n in golden() if n.startswith(f"{run.variant}/step{step}/stats/")}
        assert len(recorded) == 5 * len(groups)
        for group, moments in groups.items():
            count, mean, m2 = jax.tree.map(lambda x: x[-1], moments)
            prefix = f"{run.variant}/step{step}/stats/{authors_group(group)}"
            assert count == golden()[f"{prefix}.k"][0]
            assert_close(mean.u, golden()[f"{prefix}.u_mean"], 1e-5)
            assert_close(mean.delta, golden()[f"{prefix}.v_mean"], 1e-5)
            assert_close(m2.u, golden()[f"{prefix}.u_s"], 1e-5)
            assert_close(m2.delta, golden()[f"{prefix}.v_s"], 1e-5)


def test_gradients(run: Run):
    for step in STEPS:
        recorded = from_authors(f"{run.variant}/step{step}/grad", run.state.phi)
        assert_close(run.gradients[step], recorded, 1e-3)


def test_edited_matrices(run: Run):
    """Evaluation: the statistics stand, and are those of all sites of a shape."""
    editor = mj.gradient_editor(loss, SITES, chain_of(run.variant, "batch"))
    stats = jax.tree.map(lambda x: x[-1], run.state.stats)
    edit = jax.jit(editor.edit)(run.state._replace(stats=stats), base_params(), example(1))
    merged = mj.merge(base_params(), edit)
    for site in edit:
        kernel = merged
        for key in (*site.split("/"), "kernel"):
            kernel = kernel[key]
        assert_close(kernel, golden()[f"{run.variant}/eval_edited/{authors_site(site)}"], 1e-4)
