"""Many edits at once without their crosstalk: each answers its own keys as if it were alone.

Added edits disturb each other: edit f also answers the keys of edit e. As in MALMEN (Tan et al.
2024) the sum is replaced by a least-squares problem, here over the rows' deltas alone. With the
keys K (what the site sees at the rows of all edits), the edits' rows U and deltas D,

    G = K U^T,   C = D - (G + ridge g I)^-1 (G_off D),   edit = U^T C

where G_off is G without the blocks of an edit with itself, and g the mean of |diagonal of G|.
Without ridge K U^T C is what the edits answer alone; of one edit, C = D whatever the ridge. Rows
without a gradient are zero in K, and keep their deltas.
"""

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float, PyTree

from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.summed import alone, batched, summed
from mend_jax.example import Example
from mend_jax.factors import Edit, Factors, live, matmul, total
from mend_jax.intercept import Sites, capture
from mend_jax.objectives import LossFn


def solved(editor: Editor, loss: LossFn, at: Sites, ridge: float = 0.1) -> Editor:
    """The editor that makes each of the k edits of an example alone, and joins them so.

    Args:
      editor: any whose edits are factors, with one row for each that `capture(loss, at)` gives.
      ridge: the more, the less of the crosstalk is taken away; conflicting keys need some.
    """
    gradient = capture(loss, at)
    plain = summed(editor)

    def keys(params: PyTree, examples: Example) -> dict[str, Array]:
        """What the sites see, [edits, rows, d_in]; zero where nothing is to be learned."""
        found = jax.vmap(lambda pair: gradient(params, pair)[1], in_axes=0)(examples.edit)
        return {
            site: jax.lax.stop_gradient(jnp.where(live(rows)[..., None], rows.u, 0.0))
            for site, rows in found.items()
        }

    def joined(keys: dict[str, Array], edits: Edit) -> Edit:
        parts = {}
        for site, part in edits.items():
            if not isinstance(part, Factors):
                raise ValueError("edits without rows (fine-tuning's) can be summed, not solved")
            parts[site] = without_crosstalk(keys[site], part, ridge)
        return total(parts)

    def edit(state: EditorState, params: PyTree, example: Example) -> Edit:
        each = alone(batched(example))
        edits = jax.vmap(editor.edit, (None, None, 0))(state, params, each)
        return joined(keys(params, each), edits)

    def observe(state: EditorState, params: PyTree, examples: Example) -> tuple[PyTree, Edit]:
        each = alone(examples)
        stats, edits = editor.observe(state, params, each)
        batch = len(examples.edit.labels)
        apart = jax.tree.map(
            lambda x: x.reshape(batch, -1, *x.shape[1:]), (keys(params, each), edits)
        )
        return stats, jax.vmap(joined)(*apart)

    config = editor.config | {"at_once": "solved"}
    return Editor(plain.init, plain.calibrate, edit, observe, editor.apply, config)


def without_crosstalk(
    keys: Float[Array, "k rows d_in"], edits: Factors, ridge: float
) -> Factors:
    """The edits [k, rows, d] with other deltas (see above)."""
    own = jax.vmap(matmul)(keys, edits)
    keys, u, delta, own = (x.reshape(-1, x.shape[-1]) for x in (keys, *edits, own))
    crosstalk = matmul(keys, Factors(u, delta)) - own
    diagonal = jnp.abs(jnp.sum(keys * u, axis=-1))
    mean = jnp.sum(diagonal) / jnp.maximum(jnp.sum(diagonal > 0), 1)
    moved = delta - _solve(keys, u, ridge * mean, crosstalk)
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
        return solve(keys @ u.T + jnp.diag(shift + dead), b)
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
