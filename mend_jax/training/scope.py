"""The training of a scope: of the relation's question alone first, then of both.

What a prompt asks for is seen at its last token, of which many fit into a step; so the longer part
of what there is to learn about phrasings is learnt in seconds, before whole texts are looked at.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from mend_jax.data.prompt_batches import Prompts
from mend_jax.data.scope_batches import ScopeBatch
from mend_jax.products import narrow_dtype
from mend_jax.scopes.network import Scope
from mend_jax.training.scope_losses import Bank, empty_bank, prompts_loss, scope_loss

RATE = 1e-3
SAMPLE = 20_000
"""Positions whose statistics the states are standardised by."""
FIRST = 400
"""Steps of the relation's question alone; at most four for three of both."""


def standardised(phi: PyTree, states: Float[np.ndarray, "positions kept d"]) -> PyTree:
    """The parameters of a scope with the mean and spread of these states, each of unit size."""
    x = np.asarray(states[:SAMPLE], np.float32)
    x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    return phi | {
        "centre": jnp.asarray(x.mean(0)), "spread": jnp.asarray(x.std(0) + 1e-3)
    }  # fmt: skip


def train_relation(scope: Scope, phi: PyTree, batches: Iterator[Prompts], steps: int) -> PyTree:
    """The scope's parameters after so many steps of the relation's question alone."""
    optimiser = _adam(steps)

    def step(phi: PyTree, moments: PyTree, prompts: Prompts) -> tuple[PyTree, PyTree, Array]:
        def loss(phi: PyTree) -> Array:
            return prompts_loss(scope, _narrow(phi), prompts)

        value, gradient = jax.value_and_grad(loss)(phi)
        updates, moments = optimiser.update(gradient, moments, phi)
        return optax.apply_updates(phi, updates), moments, value

    jitted, moments = jax.jit(step, donate_argnums=(0, 1)), optimiser.init(phi)
    before = jnp.float32(0)
    for _ in range(steps):
        phi, moments, value = jitted(phi, moments, next(batches))
        before.block_until_ready()  # of two steps are there batches in memory, not of all to come
        before = value
    return phi


def train_scope(
    scope: Scope,
    phi: PyTree,
    batches: Iterator[ScopeBatch],
    steps: int,
    subjects: Int[np.ndarray, "all"],
    say: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
) -> PyTree:
    """The scope's parameters after so many steps of Adam, warmed up and along a cosine.

    Args:
      subjects: of all records of the corpus (`scope_texts.subjects_of`).
      say: called with the number of steps done, and the losses of the last.

    Raises:
      FloatingPointError: a loss is not finite.
    """
    optimiser = _adam(steps)

    def step(
        phi: PyTree, moments: PyTree, bank: Bank, batch: ScopeBatch
    ) -> tuple[PyTree, PyTree, Bank, dict[str, Array]]:
        def loss(phi: PyTree) -> tuple[Array, tuple[dict[str, Array], Bank]]:
            return scope_loss(scope, _narrow(phi), batch, bank)

        gradient, (losses, bank) = jax.grad(loss, has_aux=True)(phi)
        updates, moments = optimiser.update(gradient, moments, phi)
        return optax.apply_updates(phi, updates), moments, bank, losses

    jitted, moments = jax.jit(step, donate_argnums=(0, 1, 2)), optimiser.init(phi)
    bank, before = empty_bank(scope, phi, subjects), jnp.float32(0)
    for number in range(1, steps + 1):
        phi, moments, bank, losses = jitted(phi, moments, bank, next(batches))
        before.block_until_ready()
        before = losses["asked"]
        if number % 20 == 0 or number == steps:
            found = {name: float(x) for name, x in losses.items()}
            if not all(map(np.isfinite, found.values())):
                raise FloatingPointError(f"the scope's loss is not finite at step {number}")
            say(number, found)
    return phi


def _narrow(phi: PyTree) -> PyTree:
    """With kernels in bfloat16, on machines that multiply it; what is trained stays float32."""
    return phi | {"kernels": jax.tree.map(lambda x: x.astype(narrow_dtype()), phi["kernels"])}


def _adam(steps: int) -> optax.GradientTransformation:
    warm_up = min(20, steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, warm_up, max(steps, warm_up + 1))
    return optax.adam(rate)
