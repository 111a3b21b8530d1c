"""Fine-tuning as an editor: the baselines FT and FT+KL (paper, section 5).

What is trained is a float32 matrix beside each kernel, from zero; for a scope, a few rows
(`finetune_rows`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from mend_jax.editors.base import Editor, EditorState, untrained
from mend_jax.editors.descent import until_answered
from mend_jax.editors.finetune_rows import finetune_rows
from mend_jax.editors.method import Method
from mend_jax.example import Example, Pair
from mend_jax.factors import Dense, Edit, shape_of
from mend_jax.intercept import capture, edited
from mend_jax.models.stages import Inputs
from mend_jax.objectives import (
    IGNORED,
    LogitsFn,
    Outputs,
    answered,
    kl_divergence,
    mean_where,
    negative_log_likelihood,
)
from mend_jax.option_types import Rate, Some, Weight
from mend_jax.sites import Sites


def finetune(
    outputs: Outputs,
    at: Sites,
    *,
    learning_rate: float = 1e-4,
    steps: int = 100,
    locality: Pair | None = None,
    c_edit: float = 1e-2,
) -> Editor:
    """FT: RMSprop on the edit pair until it is answered. With `locality`, FT+KL.

    Args:
      learning_rate: the paper has 1e-4 for T5, 5e-6 for GPT-Neo and GPT-J, 1e-6 for small models.
      steps: at most so many; 100 in the paper.
      locality: pairs [n, k, ...] of tokens of training data, of which each step takes the next one;
        the loss is then their KL(before || after) + c_edit times that of the edit. Never those that
        are scored.
      c_edit: 1e-2 in the paper, 1e-3 for GPT-J.
    """
    logits = outputs.logits

    def objective(
        edit: Edit, params: PyTree, pair: Pair, others: Pair | None, step: Array
    ) -> tuple[Array, Array]:
        """The loss, and whether the edit is answered."""
        said = edited(logits, edit)(params, pair)
        value = negative_log_likelihood(said, pair.labels)
        if others is not None:
            other = jax.tree.map(lambda x: x[step % len(others.labels)], others)
            before = jax.lax.stop_gradient(logits(params, other))
            kl = kl_divergence(before, edited(logits, edit)(params, other))
            value = c_edit * value + mean_where(kl, other.labels != IGNORED)
        return value, jnp.all(answered(said, pair.labels) == 1)

    def edit(state: EditorState, params: PyTree, example: Example) -> Edit:
        del state
        start = nothing_yet(logits, at, params, example.edit)
        others = None  # the same for all edits, so a vmapped call makes them once
        if locality is not None:
            others = outputs.enter(params, jax.tree.map(jnp.asarray, locality))

        def asked(now: Edit, step: Array) -> tuple[Array, Array]:
            return objective(now, params, example.edit, others, step)

        return until_answered(asked, start, learning_rate, steps)

    options = {"learning_rate": learning_rate, "steps": steps, "c_edit": c_edit}
    return untrained(edit, _config(options, locality))


def _config(options: dict[str, Any], locality: Pair | None) -> dict[str, Any]:
    if locality is None:
        return {"editor": "ft", "options": options}
    return {"editor": "ft_kl", "options": options | {"locality": pair_to_lists(locality)}}


def nothing_yet(logits: LogitsFn, at: Sites, params: PyTree, pair: Pair) -> dict[str, Dense]:
    """The edit that changes nothing, as matrices."""

    def loss(params: PyTree, pair: Pair) -> Float[Array, ""]:
        return jnp.sum(logits(params, pair))

    shapes = jax.eval_shape(lambda p, x: capture(loss, at)(p, x)[1], params, pair)
    return {site: Dense(jnp.zeros(shape_of(part))) for site, part in shapes.items()}


def pair_to_lists(pair: Pair) -> dict[str, Any]:
    """A pair of tokens as JSON has it."""
    fields = {**pair.inputs._asdict(), "labels": pair.labels}
    return {k: np.asarray(v).tolist() for k, v in fields.items() if v is not None}


def pair_from_lists(fields: Mapping[str, Any]) -> Pair:
    """What `pair_to_lists` was given."""
    arrays: Any = {
        k: np.asarray(v, bool if k == "mask" else np.int32) for k, v in fields.items()
    }
    labels = arrays.pop("labels")
    return Pair(Inputs(**arrays), labels)


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """Options of fine-tuning."""

    learning_rate: Rate = 1e-4
    """Of RMSprop. The paper: 1e-4 for T5, 5e-6 for GPT-Neo and GPT-J, else 1e-6."""
    steps: Some = 100
    """Steps at most; they end when the edit is answered."""


@dataclass(frozen=True, kw_only=True)
class WithLocalityOptions(FineTuneOptions):
    """Options of fine-tuning that holds other answers."""

    c_edit: Weight = 1e-2
    """Weight of the edit loss; the KL of the other answers has weight 1."""


def _make(
    outputs: Outputs, at: Sites, *, late: Sequence[str] | None = None, **options: Any
) -> Editor:
    """late: it is for a scope."""
    if late is None:
        return finetune(outputs, at, **options)
    return finetune_rows(outputs, at, late, **options)


def _make_kl(outputs: Outputs, at: Sites, *, locality: Mapping[str, Any], **options: Any) -> Editor:
    return finetune(outputs, at, locality=pair_from_lists(locality), **options)


FT = Method(
    _make,
    FineTuneOptions,
    within=lambda options, late: options | {"late": list(late)},
)
FT_KL = Method(
    _make_kl,
    WithLocalityOptions,
    lambda options, ground: asdict(options) | {"locality": pair_to_lists(ground.localities())},
)
