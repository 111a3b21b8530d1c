"""Scores do not move with the bucket, the batch, or who stands beside whom, in any family."""

from typing import Any

import jax
import numpy as np
import pytest

import mend_jax as mj
from mend_jax.data.batches import Shapes, shapes_of
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import Record
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.training_batches import Draw, training_batches
from mend_jax.evaluation.scores import Scores
from mend_jax.evaluation.teacher_forced import Batching, make_scorer, score
from mend_jax.models.registry import FAMILIES
from mend_jax.models.stages import sites_of
from mend_jax.runs.small_bases import SHAPES

SMALL = {
    "t5": {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2},
    "bart": {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24},
    "gpt_neo": {"hidden_size": 16, "num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24},
}
KINDS = ("near", "far", "")


def draw(kind: str, rng: np.random.Generator, n: int, answers: int) -> Tokens:
    """A random pair as a model of this kind takes it."""
    ids = rng.integers(3, 61, n + answers).astype(np.int32)
    if kind == "classifier":
        return Tokens(ids[:n], np.zeros(1, np.int32), rng.integers(0, 2, 1).astype(np.int32))
    read = np.arange(answers, dtype=np.int32)
    if kind == "seq2seq":
        return Tokens(ids[:n], read, ids[n:], np.asarray([0, *ids[n:-1]], np.int32))
    return Tokens(ids[:-1], read + n - 1, ids[n:])


@pytest.mark.parametrize("family", SMALL)
def test_padding_moves_no_score(family: str):
    shape = {"model_type": family, "vocab_size": 61, **SHAPES[family], **SMALL[family]}
    config = FAMILIES[family].dimensions(shape, ())
    model = FAMILIES[family].model(config)
    params = model.init(jax.random.key(0), model.example_inputs())["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), params)
    records = [
        TokenRecord(
            draw(model.kind, rng, 2 + i, 1 + i % 3),
            tuple(draw(model.kind, rng, 3 + i, 2) for _ in range(i % 3)),
            tuple(draw(model.kind, rng, 4, 1 + j) for j in range(i % 4)),
            KINDS[: i % 4],
            Record("p", "t"),
        )
        for i in range(5)
    ]
    sites = sites_of(model, FAMILIES[family].default_sites(config))
    editor = mj.mend(mj.sequence_loss(model), sites, rank=4, alpha=0.05)
    shapes = shapes_of(records)
    batch = next(training_batches(records, shapes, Draw(5), 0))
    state: Any = editor.init(jax.random.key(0), params, jax.tree.map(lambda x: x[0], batch))
    state = state._replace(stats=jax.jit(editor.observe)(state, params, batch)[0])
    scorer = make_scorer(editor, mj.sequence_logits(model))
    tight = score(scorer, state, params, records, Batching(shapes, batch=1))
    assert np.nanmax(tight.kl) > 1e-3  # the edits do something
    wider = Shapes(*((length + 9, answers + 2) for length, answers in shapes[:3]))
    order = [3, 0, 4, 1, 2]
    loose = score(
        scorer, state, params, [records[i] for i in order], Batching(wider, batch=4)
    )
    where = np.argsort(order)
    for name, a, b in zip(Scores._fields, tight, loose, strict=True):
        if a is None:  # of held edits alone
            assert b is None
            continue
        np.testing.assert_allclose(a, b[where], rtol=1e-4, atol=1e-5, err_msg=name)
