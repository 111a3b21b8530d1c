"""The editor that a config describes, over what is held of a base, and the shapes of its state."""

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree

from mend_jax.editors.base import Editor
from mend_jax.editors.registry import make_editor
from mend_jax.editors.scoped import scoped
from mend_jax.example import Example, Pair
from mend_jax.links import Link
from mend_jax.models.registry import Base
from mend_jax.models.stages import split_at, traced
from mend_jax.objectives import Outputs, outputs_of
from mend_jax.scopes.registry import scope_of


def build_editor(
    config: Mapping[str, Any],
    outputs: Outputs,
    links: Mapping[str, Callable[..., Link]] | None = None,
) -> Editor:
    """The editor that a config describes, over the outputs of a model, or of the tail of one.

    Raises:
      ValueError: it is of a kind that is not known here.
    """
    name, options, sites = config["editor"], config["options"], tuple(config["sites"])
    if "scoped" not in config:
        return make_editor(name, options, outputs, sites, config.get("at_once", "joint"), links)
    within = config["scoped"]
    editor = make_editor(name, options, outputs, sites, "joint", links)
    late = within.get("late")
    if late is None:  # an editor that was saved when these were told by their names
        late = [site for site in sites if site.startswith(within["last_block"])]
    return scoped(editor, scope_of(within["scope"]), outputs.logits, late, within["rows"])


def outputs_over(base: Base, sites: tuple[str, ...]) -> Outputs:
    """The functions over what is held of a base: its model, or the tail from these sites on."""
    trunk, tail = split_at(base.model, sites)
    if base.stored is not None:
        return outputs_of(tail)
    return outputs_of(base.model, tail=None if trunk is None else tail)


def blank_example(base: Base, trunk: nn.Module | None) -> Example:
    """The smallest example that an editor over what is held of the base takes, to trace shapes
    with; with a trunk, one that has passed it."""
    inputs: Any = base.model.example_inputs()
    if trunk is not None and base.stored is None:
        inputs = jax.eval_shape(lambda p, x: trunk.apply({"params": p}, x), base.params, inputs)
    elif trunk is not None:
        inputs = traced(trunk, inputs)[1]
    blank = Pair(inputs, np.zeros((1, 1), np.int32))
    return Example(blank, blank, blank)


_known: dict[Hashable, PyTree] = {}


def state_shapes(
    editor: Editor,
    config: Mapping[str, Any],
    base: Base,
    links: Mapping[str, Callable[..., Link]] | None,
) -> PyTree:
    """The editor's state, abstract; worked out once, since JAX keeps what it traces for that."""
    kernels, tree = jax.tree.flatten(jax.eval_shape(lambda p: p, base.params))
    parts = ("editor", "options", "sites", "at_once", "scoped")
    made = json.dumps([config.get(name) for name in parts])
    held = base.stored is None
    key = (made, tuple((links or {}).items()), base.model, held, tuple(kernels), tree)
    if key not in _known:
        short = "scoped" in config or not held  # others of a whole base may want to see tokens
        trunk = split_at(base.model, config["sites"])[0] if short else None
        example = blank_example(base, trunk)
        for oldest in list(_known)[: len(_known) - 15]:
            del _known[oldest]
        _known[key] = jax.eval_shape(
            lambda p, x: editor.init(jax.random.key(0), p, x), base.params, example
        )
    return _known[key]
