"""Fine-tuning for a scope: few rows, which are those that descent on the kernels would move by."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Tiny

import mend_jax as mj
from mend_jax.editors.answering import answering
from mend_jax.editors.base import EditorState, no_edit
from mend_jax.editors.finetune_rows import finetune_rows
from mend_jax.example import Example, Pair
from mend_jax.models.stages import Inputs
from mend_jax.objectives import IGNORED, answered, negative_log_likelihood, outputs_of

SITES = ("layers_1/mlp/up_proj", "layers_2/mlp/up_proj")
LAST = tuple(site for site in SITES if site.startswith("layers_2/"))
NOTHING = EditorState({}, {})


@pytest.fixture(scope="module")
def pair() -> Pair:
    """Two answers, and a place that is left over."""
    x = np.random.default_rng(1).integers(0, 61, (1, 7)).astype(np.int32)
    read, labels = np.asarray([[4, 5, 0]], np.int32), np.asarray([[1, 2, IGNORED]], np.int32)
    return jax.tree.map(jnp.asarray, Pair(Inputs(x, read), labels))


@pytest.fixture(scope="module")
def edit(tiny: Tiny, pair: Pair) -> Any:
    editor = finetune_rows(outputs_of(tiny.model), SITES, LAST, learning_rate=1e-2)
    return jax.jit(editor.edit)(NOTHING, tiny.params, Example(pair, pair, pair))


def test_the_edit_is_answered_where_it_acts(tiny: Tiny, pair: Pair, edit: Any):
    logits = mj.sequence_logits(tiny.model)
    assert set(edit) == set(SITES) and all(len(part.u) == 3 for part in edit.values())
    assert float(answered(logits(tiny.params, pair), pair.labels)[0]) == 0
    after = answering(no_edit(), LAST).apply(NOTHING, logits, edit)
    assert float(answered(after(tiny.params, pair), pair.labels)[0]) == 1


def test_where_all_positions_are_read_it_is_traced_as_well(tiny: Tiny):
    """As when a saved editor is opened."""
    blank = Pair(tiny.model.example_inputs(), jnp.zeros((1, 1), jnp.int32))
    editor = finetune_rows(outputs_of(tiny.model), SITES, LAST)
    assert editor.init(jax.random.key(0), tiny.params, Example(blank, blank, blank)) == NOTHING


def test_its_rows_are_those_by_which_descent_would_move_the_kernels(
    tiny: Tiny, pair: Pair, edit: Any
):
    logits = mj.sequence_logits(tiny.model)

    def loss(kernels: dict[str, mj.Dense]) -> jax.Array:
        after = answering(no_edit(), LAST).apply(NOTHING, logits, kernels)
        return negative_log_likelihood(after(tiny.params, pair), pair.labels)

    nothing = {s: mj.Dense(jnp.zeros((p.u.shape[1], p.delta.shape[1]))) for s, p in edit.items()}
    for site, slope in jax.grad(loss)(nothing).items():
        u, whole = np.asarray(edit[site].u), np.asarray(slope.kernel)
        assert not u[2].any()  # nothing is answered there
        span = np.linalg.qr(u[:2].T)[0]
        beyond = whole - span @ (span.T @ whole)
        assert np.linalg.norm(beyond) < 1e-4 * np.linalg.norm(whole)
        np.testing.assert_allclose(np.mean(u[:2] ** 2, axis=1), 1.0, rtol=1e-3)
