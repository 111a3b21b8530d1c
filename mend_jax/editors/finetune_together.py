"""Fine-tuning on many edits at once, as one edit: what to beat when edits are many."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from mend_jax.editors.base import Editor, EditorState, untrained
from mend_jax.editors.finetune import nothing_yet
from mend_jax.editors.method import Method
from mend_jax.example import Example, Pair
from mend_jax.factors import Edit
from mend_jax.intercept import edited
from mend_jax.objectives import Outputs, negative_log_likelihood
from mend_jax.option_types import Rate, Seed, Some
from mend_jax.sites import Sites


def finetune_together(
    outputs: Outputs,
    at: Sites,
    *,
    learning_rate: float = 1e-3,
    epochs: int = 20,
    batch: int = 32,
    seed: int = 0,
) -> Editor:
    """Fine-tuning done well for many edits at once: Adam, several epochs over all pairs of
    `example.edit` in random order, a batch a step. Meant for late MLP projections.
    """
    logits, optimiser = outputs.logits, optax.adam(learning_rate)

    def edit(state: EditorState, params: PyTree, example: Example) -> Edit:
        del state
        start = nothing_yet(logits, at, params, example.edit)

        def objective(edit: Edit, pair: Pair) -> Float[Array, ""]:
            return negative_log_likelihood(edited(logits, edit)(params, pair), pair.labels)

        def descend(carry: Any, rows: Array) -> tuple[Any, None]:
            now, moments = carry
            gradient = jax.grad(objective)(now, jax.tree.map(lambda x: x[rows], example.edit))
            updates, moments = optimiser.update(gradient, moments)
            return (optax.apply_updates(now, updates), moments), None

        order = jnp.asarray(_epochs(len(example.edit.labels), batch, epochs, seed))
        return jax.lax.scan(descend, (start, optimiser.init(start)), order)[0][0]

    options = {"learning_rate": learning_rate, "epochs": epochs, "batch": batch, "seed": seed}
    return untrained(edit, {"editor": "ft_breadth", "options": options})


def _epochs(n: int, batch: int, epochs: int, seed: int) -> np.ndarray:
    """Rows of each step, int32[steps, batch]; the last of an epoch is filled from its start."""
    rng, size = np.random.default_rng(seed), min(batch, n)
    walks = [np.resize(rng.permutation(n), -(-n // size) * size) for _ in range(epochs)]
    return np.concatenate(walks).reshape(-1, size).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class TogetherOptions:
    """Options of fine-tuning on all edits at once."""

    learning_rate: Rate = 1e-3
    """Of Adam."""
    epochs: Some = 20
    """Times that every edit is seen."""
    seed: Seed = 0
    """Of the order of the edits."""


METHOD = Method(finetune_together, TogetherOptions, together=True)
