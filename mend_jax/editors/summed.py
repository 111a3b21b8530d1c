"""Edits held together as their sum: the paper's reading of many edits.

    W' - W = sum_e sum_r u_er delta_er^T

Few rows stay side by side; where they are many, their matrix is kept up to date beside them, so
that one edit more costs its own rows and not those of all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from mend_jax.editors.held import Holding, Slots, check_weights, count, put, slots, take_out
from mend_jax.example import Pair
from mend_jax.factors import Dense, Edit, Factors, is_many, shape_of, to_dense


class Sum(NamedTuple):
    """The rows of every edit, [capacity, rows, d]; and the matrices of all of them together at
    the sites where rows are many, or where edits have none (fine-tuning's)."""

    rows: Slots
    matrices: dict[str, Dense]


def summed() -> Holding:
    """Adds edits up. `remove` raises ValueError for edits without rows: add their negative."""

    def keep(params: PyTree, pair: Pair, edit: PyTree) -> Edit:
        del params, pair
        check_weights(edit)
        return edit

    def hold(edits: Edit, capacity: int) -> Sum:
        with_rows = {site: x for site, x in edits.items() if isinstance(x, Factors)}
        rows = slots(with_rows, count(edits), capacity)
        matrices = {
            site: Dense(to_dense(_flat(rows.kept[site])))
            for site, part in with_rows.items()
            if is_many(capacity * part.u.shape[-2], *shape_of(part))
        }
        others = {
            site: Dense(jnp.sum(x.kernel, axis=0))
            for site, x in edits.items()
            if isinstance(x, Dense)
        }
        return Sum(rows, matrices | others)

    def add(held: Sum, edit: Edit) -> Sum:
        full = jnp.all(held.rows.used)
        counted = jax.tree.map(lambda x: jnp.where(full, 0.0, x), edit)
        with_rows = {site: edit[site] for site in held.rows.kept}
        rows = put(held.rows, with_rows)
        matrices = {
            site: Dense(x.kernel + to_dense(counted[site]))
            for site, x in held.matrices.items()
        }
        return Sum(rows, matrices)

    def remove(held: Sum, slot: Int[Array, ""] | int) -> Sum:
        if without := sorted(set(held.matrices) - set(held.rows.kept)):
            raise ValueError(
                f"the edits of {without[0]!r} are matrices, of which only the sum is kept: add "
                "the negative (`scale(edit, -1.0)`) of the one to remove"
            )
        rows = take_out(held.rows, slot)
        again = {site: Dense(to_dense(_flat(rows.kept[site]))) for site in held.matrices}
        return Sum(rows, again)

    def used(held: Sum) -> Bool[Array, "capacity"]:
        return held.rows.used

    def apply(held: Sum) -> Edit:
        rows = {site: _flat(x) for site, x in held.rows.kept.items()}
        return rows | held.matrices

    return Holding(keep, hold, add, remove, used, apply, {"at_once": "summed"})


def _flat(part: Factors) -> Factors:
    """Rows [n, rows, d] as [n rows, d]."""
    return Factors(*(x.reshape(-1, x.shape[-1]) for x in part))
