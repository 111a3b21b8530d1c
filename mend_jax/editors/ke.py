"""KE: a network reads the edit as text and masks its gradient (De Cao et al. 2021).

    h = tanh(L LSTM(condition)),   (row_a, col_a, row_b, col_b, eta) = head_site(h),
    edit = scale sigmoid(eta) (g * A + B),
    A = col_a softmax(row_a)^T,   B = col_b softmax(row_b)^T

for the gradient g of a kernel [d_in, d_out], * elementwise. With g = sum_r u_r delta_r^T this stays
factored: g * (a b^T) = sum_r (a * u_r)(b * delta_r)^T, and B is one row more. The sizes are those
of MEND's comparison (appendix of the paper, and its code): LSTM 512, condition 768, heads 512.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mend_jax.editors.base import (
    Editor,
    EditorState,
    apply_edit,
    calibrate_nothing,
    observe_nothing,
)
from mend_jax.editors.method import Method
from mend_jax.example import Example
from mend_jax.factors import Edit, Factors, shape_of
from mend_jax.intercept import capture
from mend_jax.objectives import Outputs
from mend_jax.option_types import Rate
from mend_jax.sites import Sites


class Reader(nn.Module):
    """Condition text to a vector: a bidirectional LSTM's last states, a layer, tanh."""

    hidden: int
    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "k length d"], lengths: Int[Array, "k"]
    ) -> Float[Array, "k width"]:
        ends = []
        for reverse in (False, True):
            cell = nn.OptimizedLSTMCell(self.hidden, name="backward" if reverse else "forward")
            rnn = nn.RNN(cell, return_carry=True, reverse=reverse)
            (_, last), _ = rnn(x, seq_lengths=lengths)
            ends.append(last)
        return nn.tanh(nn.Dense(self.width, name="out")(jnp.concatenate(ends, axis=-1)))


class Head(nn.Module):
    """Two weight-normalised layers for one kernel: [k, 2 (d_in + d_out) + 1]."""

    hidden: int
    out: int

    @nn.compact
    def __call__(self, h: Float[Array, "k width"]) -> Float[Array, "k out"]:
        h = nn.tanh(nn.WeightNorm(nn.Dense(self.hidden, name="first"))(h))
        return nn.WeightNorm(nn.Dense(self.out, name="second"))(h)


def ke(
    outputs: Outputs,
    at: Sites,
    *,
    scale: float = 1.0,
    sizes: Sequence[int] = (512, 768, 512),
    embedding: str = "embedding",
) -> Editor:
    """The editor; `phi = {"embedding", "reader", "heads": {site: ...}}`.

    Args:
      scale: largest step (`max_scale`).
      sizes: of the LSTM, the condition vector and the heads' inner layer.
      embedding: name of the base's word embedding, with which the editor's own begins.

    Raises (from edit): ValueError: the example has no condition text, or more than one edit.
    """
    gradient = capture(outputs.loss, at)
    lstm, width, hidden = sizes
    reader = Reader(lstm, width)

    def head(d_in: int, d_out: int) -> Head:
        return Head(hidden, 2 * (d_in + d_out) + 1)

    def init(key: PRNGKeyArray, params: PyTree, example: Example) -> EditorState:
        shapes = jax.eval_shape(lambda p, x: gradient(p, x)[1], params, example.edit)
        if embedding not in params:
            raise ValueError(f"the base has no word embedding called {embedding!r}")
        table = params[embedding].astype(jnp.float32)
        first, *rest = jax.random.split(key, 1 + len(shapes))
        text, lengths = jnp.zeros((1, 1, table.shape[1])), jnp.ones(1, jnp.int32)
        heads = {
            site: head(*shape_of(part)).init(k, jnp.zeros((1, width)))
            for (site, part), k in zip(sorted(shapes.items()), rest, strict=True)
        }
        phi = {"embedding": table, "reader": reader.init(first, text, lengths), "heads": heads}
        return EditorState(phi, {})

    def edit(state: EditorState, params: PyTree, example: Example) -> Edit:
        if example.condition is None:
            raise ValueError("KE reads the edit as a text: this example has no condition text")
        if len(example.condition) != 1:
            n = len(example.condition)
            raise ValueError(f"KE makes one edit at a time, not {n}: make them alone, and add them")
        factors = jax.lax.stop_gradient(gradient(params, example.edit)[1])
        text = example.condition
        lengths = jnp.maximum(jnp.sum(text >= 0, axis=-1), 1)
        embedded = state.phi["embedding"][jnp.maximum(text, 0)]
        h: Any = reader.apply(state.phi["reader"], embedded, lengths)
        out = {}
        for site, part in factors.items():
            said: Any = head(*shape_of(part)).apply(state.phi["heads"][site], h)
            out[site] = masked(part, said[0], scale)
        return out

    options = {"scale": scale, "sizes": list(sizes), "embedding": embedding}
    config = {"editor": "ke", "options": options}
    return Editor(init, calibrate_nothing, edit, observe_nothing(edit), apply_edit, config)


def masked(gradient: Factors, said: Float[Array, "out"], scale: float = 1.0) -> Factors:
    """scale sigmoid(eta) (gradient * A + B) as factors; `said` is what a head puts out."""
    d_in, d_out = shape_of(gradient)
    ends = [d_in, d_in + d_out, 2 * d_in + d_out, 2 * (d_in + d_out)]
    col_a, row_a, col_b, row_b, eta = jnp.split(said, ends)
    u = jnp.concatenate([gradient.u * col_a[None], col_b[None]])
    delta = jnp.concatenate(
        [gradient.delta * jax.nn.softmax(row_a)[None], jax.nn.softmax(row_b)[None]]
    )
    return Factors(u, scale * jax.nn.sigmoid(eta[0]) * delta)


@dataclass(frozen=True, kw_only=True)
class KeOptions:
    """Options of KE."""

    learning_rate: Rate = 3e-4
    """Of its network."""


METHOD = Method(
    ke,
    KeOptions,
    choose=lambda options, ground: {},
    trained_with=lambda options: {"learning_rate": options.learning_rate, "calibrate": 0},
    at_once=("summed",),  # it makes one edit at a time
)
