"""Edits one after another: each on the model that those before have edited."""

from typing import Any

import chex
import jax
import numpy as np
import pytest

import mend_jax as mj
from mend_jax.data.batches import shapes_of
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import Record
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.training_batches import Draw, training_batches
from mend_jax.editors.summed import summed
from mend_jax.evaluation.collating import collate_records, widths
from mend_jax.evaluation.sequential import Sequential, edit_in_sequence
from mend_jax.evaluation.teacher_forced import Batching
from mend_jax.objectives import Outputs, outputs_of

SITES = r"layers_2/mlp/(up|down)_proj"


def tokens(rng: np.random.Generator, n: int) -> Tokens:
    whole = rng.integers(61, size=n + 2).astype(np.int32)
    return Tokens(whole[:-1], np.asarray([n - 1, n], np.int32), whole[n:])


@pytest.fixture(scope="module")
def records() -> list[TokenRecord]:
    rng = np.random.default_rng(7)
    return [
        TokenRecord(
            tokens(rng, 3), (tokens(rng, 4),), (tokens(rng, 5),), ("near",), Record("p", "t")
        )
        for _ in range(4)
    ]


def test_each_edit_is_made_on_the_model_that_those_before_have_edited(
    tiny: Any, records: list[TokenRecord]
):
    """Against weights that are merged after every edit; and one program makes all edits."""
    def over(outputs: Outputs) -> mj.Editor:
        return mj.mend(outputs.loss, SITES, rank=4, alpha=0.05)

    outputs = outputs_of(tiny.model)
    editor, shapes = over(outputs), shapes_of(records)
    batch = next(training_batches(records, shapes, Draw(4), 0))
    state = editor.init(jax.random.key(0), tiny.params, jax.tree.map(lambda x: x[0], batch))
    state = state._replace(stats=jax.jit(editor.observe)(state, tiny.params, batch)[0])
    seen: list[tuple[int, int]] = []
    holding = summed()._replace(add=chex.assert_max_traces(summed().add, n=1))
    sequential = Sequential(over, outputs, at=(1, 3, 9), holding=holding)
    scores, points = edit_in_sequence(
        sequential, state, tiny.params, records, Batching(batch=3),
        progress=lambda *x: seen.append(x),
    )  # fmt: skip
    assert seen == [(n, 4) for n in (1, 2, 3, 4)]
    assert [point.edits for point in points] == [1, 3, 4]

    make, answer = jax.jit(editor.edit), jax.jit(outputs.logits)
    examples = [
        jax.tree.map(lambda x: x[0], collate_records([[r]], shapes, widths(records)))
        for r in records
    ]

    def right(params: Any, example: mj.Example) -> np.ndarray:
        said = np.argmax(answer(params, example.outer), -1)
        return np.mean(np.all(said == example.outer.labels, -1))

    params, newest, so_far, norms = tiny.params, [], [], []
    for n, example in enumerate(examples, 1):
        params = mj.merge(params, make(state, params, example))
        newest.append(right(params, example))
        so_far.append(np.mean([right(params, x) for x in examples[:n]]))
        kernels = [
            params["layers_2"]["mlp"][name]["kernel"]
            - tiny.params["layers_2"]["mlp"][name]["kernel"]
            for name in ("up_proj", "down_proj")
        ]
        norms.append(np.mean([np.linalg.norm(kernel) for kernel in kernels]))
    assert 0 < np.mean(newest)  # something was learned
    np.testing.assert_allclose(
        [p.newest for p in points], [newest[0], np.mean(newest[1:3]), newest[3]]
    )
    np.testing.assert_allclose([p.so_far for p in points], [so_far[0], so_far[2], so_far[3]])
    np.testing.assert_allclose([p.norm for p in points], np.take(norms, [0, 2, 3]), rtol=1e-3)
    moved = [
        np.argmax(answer(params, x.locality), -1) == np.argmax(answer(tiny.params, x.locality), -1)
        for x in examples
    ]
    np.testing.assert_allclose(scores.agreement[:, 0], [np.all(same) for same in moved])
    assert points[-1].locality_agreement == np.mean(scores.agreement)


def test_edits_that_change_no_weights_are_refused(tiny: Any, records: list[TokenRecord]):
    for over in (mj.cache, lambda outputs: mj.no_edit()):
        with pytest.raises(ValueError, match="changes no weights: its edits cannot be added"):
            sequential = Sequential(over, outputs_of(tiny.model))
            edit_in_sequence(sequential, mj.EditorState({}, {}), tiny.params, records)
