"""Losses: of an edit, of locality, and the functions of a model that they are made of.

All in float32, whatever the base's dtype.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, PyTree

from mend_jax.example import Example, Pair
from mend_jax.factors import Edit
from mend_jax.intercept import edited
from mend_jax.models.generate import prediction
from mend_jax.models.stages import Inputs, Staged, run_trunk

IGNORED = -100
"""Label of a position that is not scored (the field's convention)."""

Forced = Literal["sequence", "token"]
"""How a pair is scored with its answer fed in."""

LossFn = Callable[[PyTree, Pair], Float[Array, ""]]
LogitsFn = Callable[[PyTree, Pair], Float[Array, "*batch answers vocabulary"]]
StatesFn = Callable[[PyTree, Pair], Float[Array, "k d"]]


class Outputs(NamedTuple):
    """What an editor may ask of a model, or of its tail: functions of (params, pair).

    enter: makes of a pair of tokens the pair that the others take. kind: of the model ("causal",
    "seq2seq", "classifier").
    """

    loss: LossFn
    logits: LogitsFn
    states: StatesFn
    enter: Callable[[PyTree, Pair], Pair]
    kind: str = "causal"


def outputs_of(
    model: nn.Module, trunk: nn.Module | None = None, tail: nn.Module | None = None
) -> Outputs:
    """The functions over a model, or over the tail of one whose trunk is given.

    Args:
      tail: of the model, for pairs whose inputs are what the trunk puts out (None: there are none).
    """
    loss, logits = sequence_loss(model, tail), sequence_logits(model, tail)
    states = prompt_states(model, tail)
    return Outputs(loss, logits, states, partial(through, trunk), kind_of(model))


def kind_of(model: nn.Module) -> str:
    """What it says of itself; one that says nothing is a causal language model."""
    return getattr(model, "kind", "causal")


def outputs_after(outputs: Outputs, edit: Edit) -> Outputs:
    """The functions of the edited model."""
    changed: dict[str, Any] = {
        name: edited(getattr(outputs, name), edit) for name in ("loss", "logits", "states")
    }
    return outputs._replace(**changed)


def through(trunk: nn.Module | None, params: PyTree, pair: Pair) -> Pair:
    """The pair with the trunk's outputs as inputs (any leading axes), without gradient."""
    return pair if trunk is None else pair._replace(inputs=run_trunk(trunk, params, pair.inputs))


def sequence_logits(model: nn.Module, tail: nn.Module | None = None) -> LogitsFn:
    """`logits(params, pair)`: float32[k, answers, vocabulary], aligned with `pair.labels`.

    Args:
      tail: as `outputs_of` takes it.
    """

    def logits(params: PyTree, pair: Pair) -> Any:
        return _part(pair, model, tail).apply({"params": params}, pair.inputs)

    return logits


def sequence_loss(model: nn.Module, tail: nn.Module | None = None) -> LossFn:
    """`loss(params, pair)`: mean negative log-likelihood over all scored tokens of the pair.

    Args:
      tail: as `outputs_of` takes it.
    """
    logits = sequence_logits(model, tail)

    def loss(params: PyTree, pair: Pair) -> Float[Array, ""]:
        return negative_log_likelihood(logits(params, pair), pair.labels)

    return loss


def _part(pair: Pair, model: nn.Module, tail: nn.Module | None) -> nn.Module:
    """The model for tokens, the tail for what the trunk makes of them."""
    tokens = jnp.issubdtype(pair.inputs.x.dtype, jnp.integer)
    return model if tail is None or tokens else tail


def prompt_states(model: nn.Module, tail: nn.Module | None = None) -> StatesFn:
    """`states(params, pair)`: float32[k, d], what the last block makes of a prompt, mean over its
    tokens (of an encoder-decoder, the encoder's; a classifier reads its first token only).

    The function raises ValueError for a model without stages.

    Args:
      tail: as `outputs_of` takes it.
    """

    def states(params: PyTree, pair: Pair) -> Any:
        if not isinstance(model, Staged):
            raise ValueError(f"{type(model).__name__} has no stages: which states are its last?")
        body = _part(pair, model, tail).clone(stop=len(model.stages) - 1)
        carry: Any = body.apply({"params": params}, pair.inputs._replace(read=None))
        x = carry.x
        places = jnp.arange(x.shape[1])
        if kind_of(model) == "causal" and pair.inputs.read is not None:
            keep = places[None] <= pair.inputs.read[:, :1]  # the answer is not part of the prompt
        elif pair.inputs.mask is not None:
            keep = pair.inputs.mask[:, : x.shape[1]]
        else:
            keep = jnp.ones(x.shape[:2], bool)
        total = jnp.einsum("kld,kl->kd", x.astype(jnp.float32), keep.astype(jnp.float32))
        return total / jnp.sum(keep, axis=-1, keepdims=True).astype(jnp.float32)

    return states


def negative_log_likelihood(
    logits: Float[Array, "*batch #answers vocabulary"],
    labels: Int[Array | np.ndarray, "*batch answers"],
) -> Float[Array, ""]:
    """Mean over the scored tokens of the whole batch, in nats (mend-code `masked_nll`).

    The one answer of a classifier stands for all places, of which one is scored.
    """
    logits = logits.astype(jnp.float32)
    labels = jnp.asarray(labels)
    scored = labels != IGNORED
    chosen = jnp.take_along_axis(logits, jnp.where(scored, labels, 0)[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(jnp.where(scored, nll, 0.0)) / number_of(scored)


def answered(
    logits: Float[Array, "k #answers vocabulary"],
    labels: Int[Array | np.ndarray, "k answers"],
    protocol: Forced = "sequence",
) -> Float[Array, "k"]:
    """1 if the argmax equals the label at every scored position, else 0; or the share of them."""
    labels = jnp.asarray(labels)
    scored = labels != IGNORED
    right = (prediction(logits) == labels) & scored
    if protocol == "token":
        return jnp.sum(right, axis=-1) / jnp.maximum(jnp.sum(scored, axis=-1), 1)
    return jnp.all(right | ~scored, axis=-1).astype(jnp.float32)


def kl_divergence(
    before: Float[Array, "*batch vocabulary"], after: Float[Array, "*batch vocabulary"]
) -> Float[Array, "*batch"]:
    """KL(before || after) in nats, from logits."""
    log_p = jax.nn.log_softmax(before.astype(jnp.float32), axis=-1)
    log_q = jax.nn.log_softmax(after.astype(jnp.float32), axis=-1)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def number_of(keep: Bool[Array, "*n"]) -> Float[Array, ""]:
    """How many are kept, at least 1: what a mean over them is divided by."""
    return jnp.maximum(jnp.sum(keep), 1).astype(jnp.float32)


def mean_where(values: Float[Array, "*n"], keep: Bool[Array, "*n"]) -> Float[Array, ""]:
    """Mean of the kept values; 0 if none is kept."""
    return jnp.sum(jnp.where(keep, values, 0.0)) / number_of(keep)


def after_trunk(trunk: nn.Module | None, params: PyTree, example: Example) -> Example:
    """The example with the trunk's outputs as inputs (any leading axes), without gradient."""
    edit, outer, locality = (through(trunk, params, pair) for pair in example[:3])
    return Example(edit, outer, locality, example.condition)


def after_trunk_at_once(trunk: nn.Module | None, params: PyTree, example: Example) -> Example:
    """`after_trunk` in one pass for all three pairs, so that the trunk's weights are read once; in
    one pass for each where their texts are not of one length. For what needs all of them."""
    if trunk is None:
        return example
    inputs = [pair.inputs for pair in example[:3]]
    axis = inputs[0].x.ndim - 2
    if (whole := _on_end(inputs, axis)) is None:
        return after_trunk(trunk, params, example)
    parts = _taken_apart(run_trunk(trunk, params, whole), inputs, axis)
    edit, outer, locality = (
        pair._replace(inputs=part) for pair, part in zip(example[:3], parts, strict=True)
    )
    return Example(edit, outer, locality, example.condition)


def said_at_once(logits: LogitsFn, params: PyTree, *pairs: Pair) -> list[Any]:
    """The logits of each pair, in one pass over the weights for all of them; in one pass for each
    where their texts are not of one length, or not those of a staged model."""
    staged = all(isinstance(pair.inputs, Inputs) for pair in pairs)
    whole = _on_end(pairs, 0) if staged else None
    if whole is None:
        return [logits(params, pair) for pair in pairs]
    return _taken_apart(logits(params, whole), [pair.labels for pair in pairs], 0)


def _on_end(trees: Sequence[Any], axis: int) -> Any:
    """Arrays on end along an axis; None if they differ elsewhere."""
    shapes = [jax.tree.map(lambda x: (*x.shape[:axis], *x.shape[axis + 1 :]), x) for x in trees]
    if any(other != shapes[0] for other in shapes[1:]):
        return None
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis), *trees)


def _taken_apart(whole: Any, trees: Sequence[Any], axis: int) -> list[Any]:
    """What was made of these trees on end, of each."""
    parts, done = [], 0
    for tree in trees:
        end = done + jax.tree.leaves(tree)[0].shape[axis]
        part = partial(jax.lax.slice_in_dim, start_index=done, limit_index=end, axis=axis)
        parts.append(jax.tree.map(part, whole))
        done = end
    return parts
