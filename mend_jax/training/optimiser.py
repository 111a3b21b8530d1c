"""How phi moves: Adam, with the edit rates alpha in a group of their own."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree


def editor_optimiser(
    learning_rate: optax.ScalarOrSchedule = 1e-6,
    alpha_learning_rate: optax.ScalarOrSchedule = 1e-4,
    clip: float = 100.0,
) -> optax.GradientTransformation:
    """Adam with the edit rates alpha in a group of their own, after clipping by global norm.

    The authors' second optimiser never moved alpha; this is what they meant (mend-code, trap 2).
    """

    def label(path: tuple[Any, ...], _: Array) -> str:
        return "alpha" if any(getattr(k, "key", None) == "alpha" for k in path) else "phi"

    return optax.chain(
        _clip_by_global_norm(clip),
        optax.multi_transform(
            {"phi": optax.adam(learning_rate), "alpha": optax.adam(alpha_learning_rate)},
            lambda phi: jax.tree_util.tree_map_with_path(label, phi),
        ),
    )


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """optax's, but by one factor: a product fuses into Adam, optax's quotient is written out."""

    def update(updates: PyTree, state: Any, params: Any = None) -> tuple[PyTree, Any]:
        del params
        factor = jnp.minimum(limit / optax.tree.norm(updates), 1.0)
        return jax.tree.map(lambda g: g * factor, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
