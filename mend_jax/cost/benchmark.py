"""Timing a workload: random weights and tokens, interleaved rounds, peak memory, the matmul rate.

Everything that is compared is run in turns, round after round, so that a busy moment of the machine
falls on all of it, and the fastest round of each counts.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from mend_jax.cost.workload import Workload, example_shapes
from mend_jax.editors.base import EditorState
from mend_jax.example import Example, Pair
from mend_jax.models.quantize import quantize
from mend_jax.models.stages import Inputs
from mend_jax.objectives import after_trunk


class Timing(NamedTuple):
    """Wall seconds of the fastest round, and of the median one."""

    seconds: float
    median: float


def in_turns(actions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Times each action once a round; each must end with its result being there."""
    for action in actions.values():
        action()  # compiles, warms up
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            found[name].append(time.perf_counter() - began)
    return {name: Timing(min(t), float(np.median(t))) for name, t in found.items()}


def random_params(shapes: PyTree, dtype: str) -> PyTree:
    """Weights as a trained model's in size (norms 1, the rest 0.02 N(0, 1)), made on the device.

    Args:
      dtype: "float32", "bfloat16", or "int8" (kernels; one is float32 at a time).
    """
    stored = jnp.dtype("float32" if dtype == "float32" else "bfloat16")
    normal = jax.jit(
        lambda key, shape, kind: 0.02 * jax.random.normal(key, shape, kind), static_argnums=(1, 2)
    )
    count = iter(range(len(jax.tree.leaves(shapes))))

    def one(path: tuple[Any, ...], x: Any) -> Array:
        if path[-1].key == "scale":
            return jnp.ones(x.shape, stored)
        return normal(jax.random.key(next(count)), x.shape, stored)

    def layer(path: tuple[Any, ...], tree: PyTree) -> PyTree:
        made = jax.tree_util.tree_map_with_path(lambda rest, x: one((*path, *rest), x), tree)
        return quantize(made) if dtype == "int8" else made

    def has_kernel(tree: Any) -> bool:
        return isinstance(tree, Mapping) and "kernel" in tree

    return jax.tree_util.tree_map_with_path(layer, shapes, is_leaf=has_kernel)


def random_examples(work: Workload, batch: int, seed: int = 0) -> Example:
    """Random texts, the last `answers` tokens labelled; arrays as `example_shapes` says."""
    rng = np.random.default_rng(seed)
    some = work.length - work.answers

    def pair(shapes: Pair) -> Pair:
        texts: Any = rng.integers(3, work.vocabulary, (batch, 1, work.length)).astype(np.int32)
        labels = texts[..., some:]
        before = np.arange(some - 1, work.length - 1, dtype=np.int32)  # each label's token
        filled: dict[str, Any] = {
            "read": lambda x: np.broadcast_to(before, x.shape),
            "mask": lambda x: np.ones(x.shape, bool),
            "target": lambda x: np.roll(labels, 1, axis=-1),
        }
        given = {k: getattr(shapes.inputs, k) for k in filled}
        inputs = Inputs(texts, **{k: filled[k](x) for k, x in given.items() if x is not None})
        if work.model.kind == "classifier":
            labels = np.zeros(shapes.labels.shape, np.int32)
        return jax.device_put(Pair(inputs, labels))

    shapes = example_shapes(work, batch)
    return Example(pair(shapes.edit), pair(shapes.outer), pair(shapes.locality))


def make_edit_and_answer(work: Workload) -> Callable[[EditorState, PyTree, Example], Array]:
    """`f(state, params, example)`, jitted: one edit made, and the edited base's logits on it."""

    def edit_and_answer(state: EditorState, params: PyTree, example: Example) -> Array:
        example = after_trunk(work.trunk, params, example)  # unused pairs are never computed
        edit = work.editor.edit(state, params, example)
        return work.editor.apply(state, work.logits, edit)(params, example.edit)

    return jax.jit(edit_and_answer)


def flops_of(function: Any, *args: Any) -> float:
    """Of a jitted function, from its unrolled program, before it is compiled."""
    return float(function.lower(*args).cost_analysis()["flops"])


class Matmul:
    """A large product in the given dtype; called, it runs once. `flops`: of one call."""

    def __init__(self, dtype: Any) -> None:
        size = 2048 if jax.default_backend() == "cpu" else 8192
        self.flops = 2.0 * size**3
        self._x = jnp.full((size, size), 1.0 / size, dtype)
        self._product = jax.jit(jnp.matmul)

    def __call__(self) -> None:
        self._product(self._x, self._x).block_until_ready()
