"""Descent on an edit until it is answered, which is what fine-tuning is."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

Trained = TypeVar("Trained")


def until_answered(
    objective: Callable[[Trained, Array], tuple[Array, Array]],
    start: Trained,
    learning_rate: float,
    steps: int,
) -> Trained:
    """RMSprop on `objective(now, step) -> (loss, whether the edit is answered)` until it is, for so
    many steps at most. Under `vmap` one that is answered stays as it is until all are."""
    optimiser = _rmsprop(learning_rate)

    def unanswered(carry: Any) -> Array:
        _, _, step, done = carry
        return (step < steps) & ~done

    def descend(carry: Any) -> Any:
        now, moments, step, _ = carry
        gradient, done = jax.grad(objective, has_aux=True)(now, step)
        updates, moments = optimiser.update(gradient, moments)
        moved = optax.apply_updates(now, updates)
        kept = jax.tree.map(lambda a, b: jnp.where(done, a, b), now, moved)
        return kept, moments, step + 1, done

    begin = (start, optimiser.init(start), jnp.int32(0), jnp.asarray(False))
    found: Trained = jax.lax.while_loop(unanswered, descend, begin)[0]
    return found


def _rmsprop(learning_rate: float) -> optax.GradientTransformation:
    """With PyTorch's defaults, after clipping."""
    return optax.chain(
        optax.clip_by_global_norm(100.0),
        optax.rmsprop(learning_rate, decay=0.99, eps=1e-8, eps_in_sqrt=False),
    )
