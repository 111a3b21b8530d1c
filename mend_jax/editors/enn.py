"""ENN: a base that was trained to be edited by one step of descent (Sinitsin et al. 2020).

    edit = -alpha dL_e(theta_0)/dW,   and theta_0, alpha are trained through the step (second order)

The editor's own base theta_0 starts as the given one, which stays what locality is measured
against. The authors of MEND add the KL of theta_0 itself to their loss; here the locality term is
between the given base and the edited theta_0, which covers it.

The loss of an example of k edit pairs is their mean; a step descends k times as far on it, so that
a rate is that of one edit, however many are made at once.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from mend_jax.editors.base import Editor, EditorState, calibrate_nothing, observe_nothing
from mend_jax.editors.method import Ground, Method
from mend_jax.example import Example
from mend_jax.factors import Edit, Factors
from mend_jax.intercept import capture, edited
from mend_jax.objectives import Outputs
from mend_jax.option_types import Rate
from mend_jax.sites import Sites


def enn(
    outputs: Outputs,
    at: Sites,
    *,
    rate: float = 1e-2,
    trains: str | Sequence[str] = ".*",
) -> Editor:
    """The editable base; `phi = {"base": {name: array}, "alpha": {site: scalar}}`.

    Args:
      rate: the step size alpha before training (the paper's 1e-2).
      trains: a regular expression of parameters, or their names (`layers_3/mlp/up_proj/kernel`). In
        the paper it is all of them; over the tail of a base, those that the tail uses.

    Raises (from init):
      ValueError: the base has int8 kernels, which no gradient reaches; or nothing is trained.
    """
    gradient = capture(outputs.loss, at)

    def init(key: PRNGKeyArray, params: PyTree, example: Example) -> EditorState:
        del key
        shapes = jax.eval_shape(lambda p, x: gradient(p, x)[1], params, example.edit)
        named = names_of(params)
        if integers := [k for k, v in named.items() if not jnp.issubdtype(v.dtype, jnp.floating)]:
            raise ValueError(
                f"ENN trains the base, and {integers[0]!r} has {named[integers[0]].dtype} numbers: "
                'load the base with dtype="float32"'
            )
        chosen = {
            k: v.astype(jnp.float32)
            for k, v in named.items()
            if (re.fullmatch(trains, k) if isinstance(trains, str) else k in trains)
        }
        if not chosen:
            raise ValueError(f"no parameter of the base is called like {trains!r}")
        alpha = {site: jnp.asarray(rate, jnp.float32) for site in shapes}
        return EditorState({"base": chosen, "alpha": alpha}, {})

    def own(state: EditorState, params: PyTree) -> PyTree:
        return replaced(params, state.phi["base"])

    def edit(state: EditorState, params: PyTree, example: Example) -> Edit:
        factors = gradient(own(state, params), example.edit)[1]
        alpha, k = state.phi["alpha"], len(example.edit.labels)
        return {site: Factors(f.u, -k * alpha[site] * f.delta) for site, f in factors.items()}

    def apply(state: EditorState, function: Any, edit: Edit) -> Any:
        after = edited(function, edit)
        return lambda params, *args: after(own(state, params), *args)

    config = {"editor": "enn", "options": {"rate": rate, "trains": _listed(trains)}}
    return Editor(init, calibrate_nothing, edit, observe_nothing(edit), apply, config)


def names_of(params: PyTree) -> dict[str, Any]:
    """The leaves of a tree by name (`layers_3/mlp/up_proj/kernel`)."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def replaced(params: PyTree, named: dict[str, Any]) -> PyTree:
    """The tree with some leaves in the place of its own, in its own dtypes."""

    def one(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return named[name].astype(leaf.dtype) if name in named else leaf

    return jax.tree_util.tree_map_with_path(one, params)


def used_by(outputs: Outputs, params: PyTree, example: Example) -> tuple[str, ...]:
    """Names of the parameters that the outputs depend on (arguments may be shapes)."""
    traced = jax.make_jaxpr(outputs.logits)(params, example.edit).jaxpr
    read = {id(x) for equation in traced.eqns for x in equation.invars}
    names = list(names_of(params))
    return tuple(k for k, x in zip(names, traced.invars, strict=False) if id(x) in read)


def _listed(trains: str | Sequence[str]) -> str | list[str]:
    return trains if isinstance(trains, str) else list(trains)


@dataclass(frozen=True, kw_only=True)
class EnnOptions:
    """Options of ENN."""

    rate: Rate = 1e-2
    """Edit rates before training."""
    learning_rate: Rate = 1e-5
    """Of its base."""
    alpha_learning_rate: Rate = 1e-3
    """Of the edit rates."""


def _choose(options: EnnOptions, ground: Ground) -> dict[str, Any]:
    trained = used_by(ground.outputs, ground.params, ground.example)
    return {"rate": options.rate, "trains": list(trained)}


def _trained_with(options: EnnOptions) -> dict[str, Any]:
    rates = asdict(options)
    return {k: rates[k] for k in ("learning_rate", "alpha_learning_rate")} | {"calibrate": 0}


def _no_scope(options: dict[str, Any], late: Sequence[str]) -> dict[str, Any]:
    raise ValueError("ENN edits a base of its own, which answers everywhere: it has no scope")


METHOD = Method(enn, EnnOptions, _choose, _trained_with, within=_no_scope)
