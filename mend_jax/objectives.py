"""Losses: the edit loss, the locality KL, and the edit-then-evaluate loss of the editor.

    L(phi) = c_edit L_e(theta~(phi)) + c_loc L_loc(theta, theta~(phi))      (paper, Algorithm 1)

All in float32, whatever the base's dtype.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, PyTree

from mend_jax.editors.base import Editor, EditorState, Example, Pair
from mend_jax.models.stages import run_trunk

IGNORED = -100
"""Label of a position that is not scored (the field's convention)."""

LossFn = Callable[[PyTree, Pair], Float[Array, ""]]
LogitsFn = Callable[[PyTree, Pair], Float[Array, "*batch answers vocabulary"]]


def sequence_logits(model: nn.Module) -> LogitsFn:
    """`logits(params, pair)`: float32[k, answers, vocabulary], aligned with `pair.labels`."""

    def logits(params: PyTree, pair: Pair) -> Any:
        return model.apply({"params": params}, pair.inputs)

    return logits


def sequence_loss(model: nn.Module) -> LossFn:
    """`loss(params, pair)`: mean negative log-likelihood over all scored tokens of the pair."""
    logits = sequence_logits(model)

    def loss(params: PyTree, pair: Pair) -> Float[Array, ""]:
        return negative_log_likelihood(logits(params, pair), pair.labels)

    return loss


def negative_log_likelihood(
    logits: Float[Array, "*batch answers vocabulary"], labels: Int[Array, "*batch answers"]
) -> Float[Array, ""]:
    """Mean over the scored tokens of the whole batch, in nats (mend-code `masked_nll`)."""
    logits = logits.astype(jnp.float32)
    scored = labels != IGNORED
    chosen = jnp.take_along_axis(logits, jnp.where(scored, labels, 0)[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(jnp.where(scored, nll, 0.0)) / jnp.maximum(jnp.sum(scored), 1)


def kl_divergence(
    before: Float[Array, "*batch vocabulary"], after: Float[Array, "*batch vocabulary"]
) -> Float[Array, "*batch"]:
    """KL(before || after) in nats, from logits."""
    log_p = jax.nn.log_softmax(before.astype(jnp.float32), axis=-1)
    log_q = jax.nn.log_softmax(after.astype(jnp.float32), axis=-1)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def mean_where(values: Float[Array, "*n"], keep: Bool[Array, "*n"]) -> Float[Array, ""]:
    """Mean of the kept values; 0 if none is kept."""
    return jnp.sum(jnp.where(keep, values, 0.0)) / jnp.maximum(jnp.sum(keep), 1)


def after_trunk(trunk: nn.Module | None, params: PyTree, example: Example) -> Example:
    """The example with the trunk's outputs as inputs (any leading axes), without gradient."""
    if trunk is None:
        return example

    def through(pair: Pair) -> Pair:
        return pair._replace(inputs=run_trunk(trunk, params, pair.inputs))

    return Example(
        through(example.edit), through(example.outer), through(example.locality), example.condition
    )


class Losses(NamedTuple):
    """Means over a batch of edits, in nats."""

    total: Float[Array, ""]
    edit: Float[Array, ""]
    locality: Float[Array, ""]


def edit_then_evaluate(
    editor: Editor,
    state: EditorState,
    params: PyTree,
    examples: Example,
    loss: LossFn,
    logits: LogitsFn,
    c_edit: float = 0.1,
    c_loc: float = 1.0,
) -> tuple[Float[Array, ""], tuple[Losses, Any]]:
    """The editor's training loss on a batch of independent edits, and its new statistics.

    Edits are made one per example and evaluated side by side, vmapped over shared weights.

    Args:
      examples: leading axis = edits.
      loss: scores the outer pair after the edit. logits: compared before and after on locality.

    Returns:
      total, (losses, stats).
    """
    stats, edits = editor.observe(state, params, examples)

    def one(edit: Any, example: Example) -> tuple[Array, Array]:
        l_edit = editor.apply(state, loss, edit)(params, example.outer)
        before = jax.lax.stop_gradient(logits(params, example.locality))
        after = editor.apply(state, logits, edit)(params, example.locality)
        scored = example.locality.labels != IGNORED
        return l_edit, mean_where(kl_divergence(before, after), scored)

    l_edit, l_loc = jax.tree.map(jnp.mean, jax.vmap(one)(edits, examples))
    total = c_edit * l_edit + c_loc * l_loc
    return total, (Losses(total, l_edit, l_loc), stats)
