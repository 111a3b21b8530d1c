"""Edits as values: sums of outer products, multiplied out only where that is less work.

An edit is `{site: Factors}` (or `{site: Dense}`). `Factors(u, delta)` stands for the matrix

    W' - W = sum_r u_r delta_r^T        [d_in, d_out], Flax's kernel orientation,

held as its rows: R (d_in + d_out) numbers instead of d_in d_out. The sign and the learned rate are
folded in, so an edit is always *added* to a kernel. All functions accept leading batch axes and
are meant to be vmapped.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


class Factors(NamedTuple):
    """`sum_r u_r delta_r^T`; a row is one token position of one example, as a site sees it."""

    u: Float[Array, "*batch rows d_in"]
    delta: Float[Array, "*batch rows d_out"]


class Dense(NamedTuple):
    """A matrix that has no useful factors (fine-tuning's): float32, added beside the kernel."""

    kernel: Float[Array, "*batch d_in d_out"]


Edit: TypeAlias = Mapping[str, Factors | Dense]


def live(factors: Factors) -> Bool[Array, "*batch rows"]:
    """Rows that count: u and delta both differ from zero (MEND code, `GradientTransform`)."""
    return jnp.any(factors.u != 0, axis=-1) & jnp.any(factors.delta != 0, axis=-1)


def mask_rows(factors: Factors, keep: Bool[Array, "*batch rows"]) -> Factors:
    """Zeroes the rows that are not kept."""
    keep = keep[..., None]
    return Factors(jnp.where(keep, factors.u, 0.0), jnp.where(keep, factors.delta, 0.0))


def matmul(
    x: Float[Array | np.ndarray, "*any d_in"], part: Factors | Dense
) -> Float[Array, "*any d_out"]:
    """`x @ (sum_r u_r delta_r^T)` in float32, multiplied in the order that takes less work.

    With n positions and r rows, two thin products take n r (d_in + d_out) multiplications, the
    matrix and one product (n + r) d_in d_out: less where 1/n + 1/r < 1/d_in + 1/d_out, as for a
    hundred edits at once.
    """
    x = jnp.asarray(x).astype(jnp.float32)
    if isinstance(part, Dense):
        return x @ part.kernel
    n = x.shape[-2] if part.u.ndim > 2 else x.size // x.shape[-1]
    r, (d_in, d_out) = part.u.shape[-2], shape_of(part)
    if (n + r) * d_in * d_out < n * r * (d_in + d_out):
        return x @ to_dense(part)
    return (x @ part.u.swapaxes(-1, -2)) @ part.delta


def to_dense(part: Factors | Dense) -> Float[Array, "*batch d_in d_out"]:
    """Multiplies the factors out."""
    if isinstance(part, Dense):
        return part.kernel
    return part.u.swapaxes(-1, -2) @ part.delta


def scale(edit: Edit, factor: float | Float[Array, ""]) -> dict[str, Factors | Dense]:
    """The edit times a number; `scale(edit, -1.0)` undoes it."""
    return {
        site: Dense(part.kernel * factor)
        if isinstance(part, Dense)
        else Factors(part.u, part.delta * factor)
        for site, part in edit.items()
    }


def add(a: Edit, b: Edit) -> dict[str, Factors | Dense]:
    """Both edits at once: rows side by side, or one `Dense` where either side has one."""
    total = dict(a)
    for site, part in b.items():
        mine = total.get(site)
        if mine is None:
            total[site] = part
        elif isinstance(mine, Factors) and isinstance(part, Factors):
            total[site] = Factors(
                jnp.concatenate([mine.u, part.u], axis=-2),
                jnp.concatenate([mine.delta, part.delta], axis=-2),
            )
        else:
            total[site] = Dense(to_dense(mine) + to_dense(part))
    return total


def rounded(part: Factors) -> Factors:
    """The same rows in float16, as JAX's arrays or NumPy's.

    u and delta of a row are first made equally long, so that neither is so small that float16 has
    few digits for it. Then each number is off by 1/2048 of itself at most.
    """
    u, delta = (((x * x).sum(axis=-1, keepdims=True) + 1e-30) ** 0.25 for x in part)
    longer = delta / u
    return Factors(
        (part.u * longer).astype(np.float16), (part.delta / longer).astype(np.float16)
    )


def in_float32(rows: Mapping[str, Factors]) -> dict[str, Factors]:
    """Rows as they are multiplied: what was `rounded` is never added up in float16."""
    return {
        site: Factors(*(jnp.asarray(x).astype(jnp.float32) for x in part))
        for site, part in rows.items()
    }


def is_many(rows: int, d_in: int, d_out: int) -> bool:
    """Whether so many rows are better multiplied out: from half of the smaller dimension on, they
    are at least half as many numbers as the matrix has, and as much work wherever they are used."""
    return 2 * rows > min(d_in, d_out)


def total(edits: Edit) -> dict[str, Factors | Dense]:
    """The sum of the edits along the first axis: rows [k, rows, d] become [k rows, d], or one
    matrix where these are many (`is_many`)."""

    def one(part: Factors | Dense) -> Factors | Dense:
        if isinstance(part, Dense):
            return Dense(jnp.sum(part.kernel, axis=0))
        together = Factors(*(x.reshape(-1, x.shape[-1]) for x in part))
        many = is_many(together.u.shape[0], *shape_of(part))
        return Dense(to_dense(together)) if many else together

    return {site: one(part) for site, part in edits.items()}


def norm(part: Factors | Dense) -> Float[Array, "*batch"]:
    """Frobenius norm of the matrix, from Gram matrices of the rows: sum((u u^T) * (d d^T))."""
    if isinstance(part, Dense):
        return jnp.linalg.norm(part.kernel, axis=(-2, -1))
    gram_u = part.u @ part.u.swapaxes(-1, -2)
    gram_delta = part.delta @ part.delta.swapaxes(-1, -2)
    return jnp.sqrt(jnp.maximum(jnp.sum(gram_u * gram_delta, axis=(-2, -1)), 0.0))


def shape_of(part: Factors | Dense) -> tuple[int, int]:
    """(d_in, d_out) of the kernel that the part is added to."""
    if isinstance(part, Dense):
        return part.kernel.shape[-2], part.kernel.shape[-1]
    return part.u.shape[-1], part.delta.shape[-1]


def natural(site: str) -> list[int | str]:
    """Sort key in which `layers_9` comes before `layers_10`."""
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", site)]


def group_sites(factors: Mapping[str, Factors], shared: bool) -> dict[str, list[str]]:
    """Sites that share an editor network: one group per kernel shape, or one per site.

    Returns `{"576x1536": [sites in natural order], ...}`, or `{site: [site]}` if not shared.
    """
    groups: dict[str, list[str]] = {}
    for site in sorted(factors, key=natural):
        d_in, d_out = shape_of(factors[site])
        groups.setdefault(f"{d_in}x{d_out}" if shared else site, []).append(site)
    return groups
