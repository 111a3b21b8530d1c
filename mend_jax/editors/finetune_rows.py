"""Fine-tuning for a scope: edits of few rows, trained where they will act.

Descent moves a kernel by sums of u delta^T, where u is what goes into the layer at the positions at
which the edit is felt. In a scope these are the few at which an answer is read. So u stays that of
the base there, and what is trained is delta, from zero. In the lowest site that is fine-tuning of
the kernel itself, but for how the optimiser scales its steps; above, where u moves with the sites
below, it is that to the first order.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mend_jax.editors.answering import answering
from mend_jax.editors.base import Editor, EditorState, no_edit, untrained
from mend_jax.editors.descent import until_answered
from mend_jax.example import Example, Pair
from mend_jax.factors import Edit, Factors
from mend_jax.intercept import capture
from mend_jax.objectives import IGNORED, Outputs, answered, negative_log_likelihood
from mend_jax.sites import Sites


def finetune_rows(
    outputs: Outputs,
    at: Sites,
    late: Collection[str],
    *,
    learning_rate: float = 1e-4,
    steps: int = 100,
) -> Editor:
    """RMSprop on the rows of an edit that acts where its answer is read, until it is answered.

    An edit has a row for each token of its answer.

    Args:
      late: the sites that see no positions but those `read`.
      learning_rate: of inputs u whose features are of size 1, so that a step moves what comes out
        about as far as one of `finetune` does.
      steps: at most so many.
    """
    gradient = capture(outputs.loss, at)
    apply = answering(no_edit(), late).apply

    def edit(state: EditorState, params: PyTree, example: Example) -> Edit:
        pair = _all_read(example.edit)
        found = jax.lax.stop_gradient(gradient(params, pair)[1])
        u = {
            site: _sized(part.u if site in late else _read(part.u, pair), pair)
            for site, part in found.items()
        }

        def with_rows(delta: dict[str, Array]) -> dict[str, Factors]:
            return {site: Factors(u[site], x) for site, x in delta.items()}

        def objective(delta: dict[str, Array], step: Array) -> tuple[Array, Array]:
            del step
            said = apply(state, outputs.logits, with_rows(delta))(params, pair)
            done = jnp.all(answered(said, pair.labels) == 1)
            return negative_log_likelihood(said, pair.labels), done

        nothing = {
            site: jnp.zeros((len(u[site]), part.delta.shape[-1]))
            for site, part in found.items()
        }
        return with_rows(until_answered(objective, nothing, learning_rate, steps))

    options = {"learning_rate": learning_rate, "steps": steps, "late": list(late)}
    config: dict[str, Any] = {"editor": "ft", "options": options}
    return answering(untrained(edit, config), late)


def _all_read(pair: Pair) -> Pair:
    """The pair that says which positions are read, also if that is all of them."""
    if pair.inputs.read is not None:
        return pair
    read = jnp.broadcast_to(jnp.arange(pair.inputs.x.shape[1]), pair.inputs.x.shape[:2])
    return pair._replace(inputs=pair.inputs._replace(read=read))


def _read(u: Float[Array, "rows d_in"], pair: Pair) -> Float[Array, "answer_rows d_in"]:
    """Those of the positions that are read, of rows of all positions."""
    read = pair.inputs.read
    every = u.reshape(len(read), -1, u.shape[-1])
    return jnp.take_along_axis(every, read[..., None], axis=1).reshape(-1, u.shape[-1])


def _sized(u: Float[Array, "rows d_in"], pair: Pair) -> Float[Array, "rows d_in"]:
    """With features whose mean square is 1; zero where nothing is answered."""
    size = jax.lax.rsqrt(jnp.mean(u * u, axis=-1, keepdims=True) + 1e-12)
    scored = jnp.asarray(pair.labels != IGNORED).reshape(-1, 1)
    return jnp.where(scored, u * size, 0.0)
