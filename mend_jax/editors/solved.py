"""Many edits at once without their crosstalk: each answers its own keys as if it were alone.

Added edits disturb each other: edit f also answers the keys of edit e. As in MALMEN (Tan et al.
2024) the sum is replaced by a least-squares problem, here over the rows' deltas alone. With the
keys K (what the site sees at the rows of all edits), the edits' rows U and deltas D,

    G = K U^T,   C = D - (G + ridge g I)^-1 (G_off D),   edit = U^T C

where G_off is G without the blocks of an edit with itself, and g the mean of |diagonal of G|.
Without ridge K U^T C is what the edits answer alone; of one edit, C = D whatever the ridge. Rows
without a gradient are zero in K, and keep their deltas.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Bool, Float, PyTree

from mend_jax.editors.held import Holding, Slots, check_weights, count, put, slots, take_out
from mend_jax.example import Pair
from mend_jax.factors import Edit, Factors, live, matmul, total
from mend_jax.intercept import capture
from mend_jax.objectives import LossFn, number_of
from mend_jax.sites import Sites


class Keyed(NamedTuple):
    """An edit, and what its sites see at its rows, {site: float32[rows, d_in]}; zero where nothing
    is to be learned."""

    edit: Edit
    keys: dict[str, Float[Array, "rows d_in"]]


def solved(loss: LossFn, at: Sites, ridge: float = 0.1) -> Holding:
    """Joins edits by the least-squares problem above.

    Args:
      loss, at: the edits are factors, with one row for each that `capture(loss, at)` gives.
      ridge: the more, the less of the crosstalk is taken away; conflicting keys need some.
    """
    gradient = capture(loss, at)

    def keep(params: PyTree, pair: Pair, edit: PyTree) -> Keyed:
        check_weights(edit)
        found = gradient(params, pair)[1]
        keys = {
            site: jax.lax.stop_gradient(jnp.where(live(rows)[..., None], rows.u, 0.0))
            for site, rows in found.items()
        }
        return Keyed(edit, keys)

    def hold(kept: Keyed, capacity: int) -> Slots:
        return slots(kept, count(kept), capacity)

    def used(held: Slots) -> Bool[Array, "capacity"]:
        return held.used

    def apply(held: Slots) -> Edit:
        parts = {}
        for site, part in held.kept.edit.items():
            if not isinstance(part, Factors):
                raise ValueError("edits without rows (fine-tuning's) can be summed, not solved")
            parts[site] = without_crosstalk(held.kept.keys[site], part, ridge)
        return total(parts)

    return Holding(keep, hold, put, take_out, used, apply, {"at_once": "solved"})


def without_crosstalk(
    keys: Float[Array, "k rows d_in"], edits: Factors, ridge: float
) -> Factors:
    """The edits [k, rows, d] with other deltas (see above)."""
    own = jax.vmap(matmul)(keys, edits)
    keys, u, delta, own = (x.reshape(-1, x.shape[-1]) for x in (keys, *edits, own))
    crosstalk = matmul(keys, Factors(u, delta)) - own
    diagonal = jnp.abs(jnp.sum(keys * u, axis=-1))
    mean = jnp.sum(diagonal) / number_of(diagonal > 0)
    shift = jnp.where(mean > 0, ridge * mean, 1.0)  # of no edits at all, any will do
    moved = delta - _solve(keys, u, shift, crosstalk)
    return Factors(edits.u, moved.reshape(edits.delta.shape))


def _solve(
    keys: Float[Array, "n d"], u: Float[Array, "n d"], shift: Array, b: Float[Array, "n out"]
) -> Float[Array, "n out"]:
    """(keys u^T + shift I)^-1 b, by a system of min(n, d) equations; rows without a key give 0.

    The larger by the smaller: (A B + s I)^-1 = (I - A (B A + s I)^-1 B) / s.
    """
    n, d = keys.shape
    if n <= d:
        dead = ~jnp.any(keys != 0, axis=-1)
        return solve(keys @ u.T + jnp.diag(shift + dead.astype(keys.dtype)), b)
    inner = solve(u.T @ keys + shift * jnp.eye(d), u.T @ b)
    return (b - keys @ inner) / shift


def solve(a: Float[Array, "n n"], b: Float[Array, "n out"]) -> Float[Array, "n out"]:
    """a^-1 b, with derivatives; under `vmap`, one system after another.

    XLA's CPU backend shares the LU decompositions of a batch out among its threads, and several
    such batches side by side (one for each site) can wait for each other for ever.
    """
    one = sequential_vmap(jnp.linalg.solve)
    return jax.lax.custom_linear_solve(
        lambda x: a @ x, b, lambda _, b: one(a, b), lambda _, b: one(a.T, b)
    )
