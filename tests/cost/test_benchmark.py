"""The benchmark: what it times is the real thing, and its sums are right."""

import inspect
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mend_jax.commands.benchmark import BenchmarkConfig, benchmark, run
from mend_jax.cost.benchmark import (
    Matmul,
    in_turns,
    make_edit_and_answer,
    random_examples,
    random_params,
)
from mend_jax.cost.workload import Sizes, example_shapes, make_workload
from mend_jax.models.quantize import quantize
from mend_jax.objectives import after_trunk
from mend_jax.training.state import init_state

CAUSAL = {
    "model_type": "gpt2", "vocab_size": 61, "n_positions": 32, "n_embd": 24, "n_layer": 4,
    "n_head": 4,
}  # fmt: skip
SEQ2SEQ = {
    "model_type": "t5", "vocab_size": 61, "d_model": 24, "d_kv": 6, "d_ff": 46, "num_layers": 3,
    "pad_token_id": 0, "decoder_start_token_id": 0,
    "num_heads": 4,
}  # fmt: skip
CLASSIFIER = {
    "model_type": "bert", "architectures": ["BertForSequenceClassification"], "num_labels": 1,
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 46, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.mark.parametrize("config", [CAUSAL, SEQ2SEQ, CLASSIFIER], ids=lambda c: c["model_type"])
def test_random_examples_are_of_the_planned_shapes(config: dict[str, Any]):
    """And each label is predicted from the token before it."""
    work = make_workload(config, Sizes(9, 3, 13))
    made = random_examples(work, 4)
    planned = jax.tree.map(lambda x: (x.shape, x.dtype), example_shapes(work, 4))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == planned
    inputs = made.edit.inputs
    x, read, target = inputs.x, inputs.read, inputs.target
    labels = np.asarray(made.edit.labels)
    if read is not None:
        read = np.asarray(read)
        np.testing.assert_array_equal(np.take_along_axis(np.asarray(x), read + 1, 2), labels)
    if target is not None:
        np.testing.assert_array_equal(np.asarray(target)[..., 1:], labels[..., :-1])
    if config is CLASSIFIER:
        assert labels.shape == (4, 1, 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_random_params_are_those_of_a_loaded_base(dtype: str):
    work = make_workload(CAUSAL)
    params = random_params(work.params, dtype)
    stored = jnp.dtype("float32" if dtype == "float32" else "bfloat16")
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, stored), work.params)
    if dtype == "int8":
        wanted = jax.eval_shape(quantize, wanted)
    assert jax.tree.structure(params) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
    assert np.all(np.asarray(params["h_0"]["ln_1"]["scale"], np.float32) == 1)
    kernels = [np.asarray(params[f"h_{i}"]["mlp"]["c_fc"]["kernel"], np.float32) for i in (0, 1)]
    assert not np.array_equal(*kernels)


def test_an_edit_applied_is_the_editors_edit_on_the_whole_model():
    work = make_workload(CAUSAL, Sizes(9, 3, 13))
    params = random_params(work.params, "float32")
    first = after_trunk(work.trunk, params, random_examples(work, 1))
    one = jax.tree.map(lambda x: x[0], first)
    state = init_state(work.editor, work.optimiser, jax.random.key(0), params, one)
    state, _ = work.step(state, params, random_examples(work, 4))
    batch = random_examples(work, 1, seed=1)
    example = jax.tree.map(lambda x: x[0], batch)
    got = make_edit_and_answer(work)(state.editor, params, example)

    @jax.jit
    def by_hand(state: Any) -> tuple[jax.Array, jax.Array]:
        tail = jax.tree.map(lambda x: x[0], after_trunk(work.trunk, params, batch))
        edit = work.editor.edit(state, params, tail)
        after = work.editor.apply(state, work.logits, edit)
        return after(params, tail.edit), work.logits(params, tail.edit)

    after, before = by_hand(state.editor)
    np.testing.assert_allclose(got, after, rtol=1e-4, atol=1e-5)
    assert not np.allclose(got, before, atol=1e-6)


def test_rounds_are_interleaved_and_the_fastest_counts():
    order: list[str] = []
    times = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4  # one to warm up
    assert 0 <= times["a"].seconds <= times["a"].median
    assert Matmul(jnp.float32).flops == 2 * 2048**3


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CAUSAL))
    out = tmp_path / "found.json"
    benchmark(
        BenchmarkConfig(
            str(folder), random_weights=True, batch=2, length=9, answers=3, rank=13, rounds=2,
            json=out,
        )
    )  # fmt: skip
    said = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert set(found["results"]) == {"step_1", "step_2", "edit", "evaluate", "evaluate_alone"}
    unit = found["unit"]["seconds"]
    for name, result in found["results"].items():
        assert name in said
        seconds, flops = result["seconds_per_edit"], result["flops_per_edit"]
        assert result["units"] == pytest.approx(seconds / unit)
        share = flops / seconds / found["matmul_flops_per_second"]
        assert result["share_of_matmul_rate"] == pytest.approx(share)
        assert 0 < result["peak_bytes"] <= found["peak_bytes"]
    assert found["results"]["evaluate"]["edits"] == 100


@pytest.mark.parametrize("config", [CAUSAL, SEQ2SEQ, CLASSIFIER], ids=lambda c: c["model_type"])
def test_the_unit_differentiates_all_weights_of_the_same_base(config: dict[str, Any]):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from mend_jax.cost.torch_unit import make_unit

    work = make_workload(config, Sizes(9, 3))
    unit = make_unit(config, random_examples(work, 1), "float32", gpu=False)
    unit()
    cells = [cell.cell_contents for cell in inspect.unwrap(unit).__closure__]
    model = next(x for x in cells if hasattr(x, "parameters"))
    with_gradient = [x for x in model.parameters() if x.grad is not None]
    assert sum(x.numel() for x in with_gradient) > 0.95 * sum(
        np.prod(x.shape) for x in jax.tree.leaves(work.params)
    )
    assert all(torch.isfinite(x.grad).all() for x in with_gradient)


def test_without_pytorch_the_unit_is_left_out_with_a_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "config.json").write_text(json.dumps(CAUSAL))

    def missing(*_: Any) -> None:
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr("mend_jax.commands.benchmark.make_unit", missing)
    tiny = BenchmarkConfig(
        str(tmp_path), random_weights=True, batch=1, length=9, answers=3, rank=13, rounds=1
    )
    found = run(tiny)
    assert "left out" in found["unit"] and "torch" in found["unit"]
    assert found["results"]["edit"]["units"] is None


def test_numbers_out_of_range():
    with pytest.raises(ValueError, match="--rounds 0: from 1 to"):
        run(BenchmarkConfig(random_weights=True, rounds=0))
    with pytest.raises(ValueError, match="11 labelled tokens of 9"):
        run(BenchmarkConfig(random_weights=True, length=9, answers=11))
