"""Edits that are felt only where they belong: an editor and a scope, as an editor.

Each edit is made on the base alone, and kept with its keys and its target. In a text, an edit acts
at those positions only where it is active (`scopes.active`); everywhere else the base answers,
exactly. So edits are held beside each other, in any order, and one that is removed is gone.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.held import (
    Holding,
    Slots,
    alone,
    check_weights,
    count,
    more_slots,
    put,
    slots,
    take_out,
)
from mend_jax.example import Example, Pair
from mend_jax.factors import Factors, rounded
from mend_jax.models.stages import Seen
from mend_jax.objectives import LogitsFn
from mend_jax.parallel import over_data, replicated
from mend_jax.parallel import put as place
from mend_jax.routed import routed, seen_by
from mend_jax.scopes.active import NONE, active, before, fires
from mend_jax.scopes.memory import Memory
from mend_jax.scopes.network import Keys, Scope


class ScopedEdit(NamedTuple):
    """One edit: its rows at each site, in float16, its keys in float32, and the tokens of its
    target (NONE after them)."""

    rows: dict[str, Factors]
    keys: Keys
    target: Int[Array, "answers"]


class ScopedPhi(NamedTuple):
    """Parameters of both, each trained on its own."""

    editor: PyTree
    scope: PyTree


ROUNDS = 30
"""Of the iteration that finds the rows of an edit that are kept."""


def compressed(part: Factors, rows: int) -> Factors:
    """At most so many rows, whose matrix is all but the nearest to that of all rows.

    That is M V V^T, where V spans the first right singular vectors of M = U^T D (Eckart and Young
    1936). They are found by orthogonal iteration among the rows: with V = D^T A, a round takes A to
    (U U^T) (D D^T) A. No d x d matrix is formed, and LAPACK is not called from within a program.
    """
    n = part.u.shape[0]
    if n <= rows:
        return part
    gram_u, gram = (x @ x.T for x in part)
    tiny = jnp.float32(1e-30)
    turn = gram_u @ gram / jnp.maximum(jnp.trace(gram_u) * jnp.trace(gram), tiny)

    def orthonormal(a: Float[Array, "n rows"]) -> Float[Array, "n rows"]:
        """By Gram and Schmidt, in the metric of V, each column twice; what is left of no size is
        dropped."""

        def add(i: Int[Array, ""], found: Float[Array, "n rows"]) -> Float[Array, "n rows"]:
            column = a[:, i]
            size = jnp.sqrt(jnp.maximum(column @ gram @ column, tiny))
            for _ in range(2):
                column = column - found @ (found.T @ (gram @ column))
            left = jnp.sqrt(jnp.maximum(column @ gram @ column, tiny))
            return found.at[:, i].set(jnp.where(left > 1e-4 * size, column / left, 0.0))

        return jax.lax.fori_loop(0, rows, add, jnp.zeros_like(a))

    begun = orthonormal(jax.random.normal(jax.random.key(0), (n, rows), jnp.float32))
    a = jax.lax.fori_loop(0, ROUNDS, lambda _, a: orthonormal(turn @ a), begun)
    return Factors((gram @ a).T @ part.u, a.T @ part.delta)


def check_factors(edit: PyTree) -> None:
    """Raises ValueError for an edit that cannot be held in a scope: it is no change of weights, or
    one by whole matrices."""
    check_weights(edit)
    if without := [site for site, part in edit.items() if not isinstance(part, Factors)]:
        raise ValueError(
            f"the edit of {without[0]!r} is a matrix: only edits that are factors are scoped"
        )


def scoped(
    editor: Editor, scope: Scope, logits: LogitsFn, late: Collection[str], rows: int = 4
) -> Editor:
    """The editor whose edits are felt only within the scope; its edit is a value that holds them.

    Args:
      editor: makes the edits; they have to be factors.
      logits: of the model that is edited, or of its tail; it keeps the states of `scope.stages`.
      late: the sites that see no positions but those `read` (`stages.sites_at_read`); of no matter
        where texts are read as a whole.
      rows: how many are kept of an edit at each site.
    """

    def seen_in(params: PyTree, pair: Pair) -> Seen:
        seen: Seen | None = pair.inputs.seen
        return seen_by(logits, params, pair) if seen is None else seen

    def one(state: EditorState, params: PyTree, example: Example) -> ScopedEdit:
        edit: Any = editor.edit(EditorState(state.phi.editor, state.stats), params, example)
        check_factors(edit)
        small = {site: rounded(compressed(part, rows)) for site, part in edit.items()}
        pair = example.edit
        seen = seen_in(params, pair)
        keys = scope.keys(state.phi.scope, seen.states, seen.mask)
        at = pair.inputs.read[0, 0]
        labels = jnp.asarray(pair.labels[0])
        target = jnp.where(labels < 0, NONE, labels)
        return ScopedEdit(small, Keys(*(x[0, at] for x in keys)), target)

    def init(key: PRNGKeyArray, params: PyTree, example: Example) -> EditorState:
        first, second = jax.random.split(key)
        each = jax.eval_shape(lambda x: jax.tree.map(lambda y: y[0], alone(_batched(x))), example)
        inner = editor.init(first, params, each)
        seen = jax.eval_shape(seen_in, params, each.edit)
        phi = ScopedPhi(inner.phi, scope.init(second, seen.states.shape[-1]))
        return EditorState(phi, inner.stats)

    def edit(state: EditorState, params: PyTree, example: Example) -> Any:
        made = jax.vmap(one, (None, None, 0))(state, params, alone(_batched(example)))
        return slots(made, count(made), count(made))

    def apply(
        state: EditorState, function: Callable[..., Any], held: Any
    ) -> Callable[..., Any]:
        decide = partial(acting, scope, state.phi.scope, held)
        return routed(function, held.kept.rows, decide, late)

    def calibrate(state: EditorState, params: PyTree, examples: Example) -> PyTree:
        inner = EditorState(state.phi.editor, state.stats)
        return editor.calibrate(inner, params, alone(examples))

    def observe(state: EditorState, params: PyTree, examples: Example) -> tuple[PyTree, Any]:
        return state.stats, jax.vmap(edit, (None, None, 0))(state, params, examples)

    config = {"scope": scope.config, "late": list(late), "rows": rows}
    return Editor(init, calibrate, edit, observe, apply, editor.config | {"scoped": config})


def acting(
    scope: Scope, phi: PyTree, held: Slots, seen: Seen, memory: Memory | None = None
) -> Int[Array, "k length"]:
    """The slot of the edit that acts at each position of texts, or NONE; where texts are read as a
    whole, [k, 1]: at all of them.

    Args:
      memory: of what was read before what is seen now; it learns that, too.
    """
    near = scope.near(phi, scope.keys(phi, seen.states, seen.mask, memory), held.kept.keys)
    fire = fires(near, held.used)
    if scope.whole:
        return fire
    place = active(fire, seen.tokens, held.kept.target, before(memory, len(fire)))
    if memory is not None:
        for name, values in place._asdict().items():
            memory.keep(name, values)
    return place.edit


def holding() -> Holding:
    """Scoped edits side by side, in slots."""
    return Holding(
        keep=lambda params, pair, edit: jax.tree.map(lambda x: x[0], edit.kept),
        hold=lambda kept, capacity: slots(kept, count(kept), capacity),
        add=put,
        remove=take_out,
        list=lambda held: held.used,
        apply=lambda held: held,
        config={"at_once": "scoped"},
    )


def spread(held: Slots, mesh: Mesh) -> Slots:
    """The held edits split over the mesh's axis "data", with free slots beside them so that they
    divide; the tokens of their targets are on every device.

    Each device compares texts with its own edits; how near these are is told to all of them, and
    of rows those alone are sent that act. What acts is the same, and where.
    """
    held = jax.tree.map(jnp.asarray, held)
    held = more_slots(held, -len(held.used) % mesh.shape["data"])
    split = jax.tree.map(lambda x: place(x, over_data(mesh)), held)
    target = place(held.kept.target, replicated(mesh))
    return split._replace(kept=split.kept._replace(target=target))


def _batched(example: Example) -> Example:
    return jax.tree.map(lambda x: x[None], example)
