"""The plan: counted exactly where it says so, and the rest as the compiled step has it."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mend_jax.commands.plan import PlanConfig, plan
from mend_jax.cost.plan import CARDS, cards_for, make_plan
from mend_jax.cost.workload import Sizes, example_shapes, make_workload, state_shapes
from mend_jax.factors import Factors
from mend_jax.links.residual_mlp import residual_mlp
from mend_jax.models.memory import device_bytes, stored_shapes
from mend_jax.models.published import PUBLISHED, config_of
from mend_jax.models.registry import FAMILIES
from mend_jax.parallel import make_mesh, parse_mesh

TINY = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 46,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
}
SETTING = {"batch": 4, "sizes": Sizes(9, 3, 13)}

PARAMS = {  # published sizes, in millions
    "google/t5-small-ssm-nq": 77.0,
    "google/t5-large-ssm-nq": 737.7,
    "google/t5-xl-ssm-nq": 2849.8,
    "google/t5-xxl-ssm-nq": 11135.3,
    "facebook/bart-base": 139.5,  # with its bias of the logits
    "distilgpt2": 81.9,
    "gpt2": 124.4,
    "gpt2-medium": 354.8,
    "gpt2-large": 774.0,
    "gpt2-xl": 1557.6,
    "EleutherAI/gpt-neo-2.7B": 2651.3,
    "EleutherAI/gpt-j-6B": 6050.9,
    "meta-llama/Llama-3.1-8B": 8030.3,
    "bert-base-uncased": 109.5,
    "smollm2-135m": 134.5,
}

EDITOR = {  # section 1.8 of the paper's specification, in millions at rank 1920
    "google/t5-small-ssm-nq": 18.9,
    "google/t5-large-ssm-nq": 78.8,
    "google/t5-xl-ssm-nq": 110.4,
    "google/t5-xxl-ssm-nq": 220.7,
    "facebook/bart-base": 59.1,
    "distilgpt2": 59.1,
    "gpt2-xl": 123.1,
    "EleutherAI/gpt-neo-2.7B": 197.0,
    "EleutherAI/gpt-j-6B": 315.1,
    "bert-base-uncased": 59.1,
}


def numbers(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", PUBLISHED)
def test_built_in_dimensions_are_the_published_ones(name: str):
    """Number of parameters; and of the editor at the sites edited by default."""
    config = config_of(name)
    family = FAMILIES[config["model_type"]]
    dimensions = family.dimensions(config, ())
    weights = family.expected_weights(dimensions).values()
    assert round(sum(math.prod(x.shape) for x in weights) / 1e6, 1) == PARAMS[name]
    if name not in EDITOR:
        return
    kernels = {"/".join(x.path[:-1]): x.shape for x in weights if x.path[-1] == "kernel"}
    chosen = [k for k in kernels if re.fullmatch(family.default_sites(dimensions), k)]
    assert len(chosen) == (8 if config["model_type"] in ("t5", "bart") else 6)
    sites = {k: Factors(*(jnp.zeros((1, d)) for d in kernels[k])) for k in chosen}
    phi = jax.eval_shape(lambda: residual_mlp(1920).init(jax.random.key(0), sites)[0])
    assert round(numbers(phi) / 1e6, 1) == EDITOR[name]


@pytest.fixture(scope="module")
def planned() -> dict[str, Any]:
    mesh = make_mesh(1, 1)
    return {d: make_plan(TINY, mesh, dtype=d, **SETTING) for d in ("float32", "int8")}


def test_what_is_counted_is_what_the_arrays_hold(planned: dict[str, Any]):
    work = make_workload(TINY, Sizes(9, 3, 13))
    examples = example_shapes(work, 4)
    state = state_shapes(work, examples)
    made = planned["float32"]
    assert made.params == numbers(work.params)
    assert made.bytes.weights == 4 * made.params
    assert made.bytes.editor == 4 * numbers(state.editor)
    assert made.bytes.gradients == 4 * numbers(state.editor.phi) == 4 * made.editor_params
    assert made.bytes.optimizer == 4 * numbers(state.optimiser)
    assert made.bytes.peak == sum(made.bytes[:-1])
    kernels = 5 * (24 * 40 + 2 * 24 * 20 + 40 * 24 + 3 * 24 * 46)
    outputs = 5 * (40 + 2 * 20 + 24 + 2 * 46 + 24)
    rest = made.params - kernels
    assert planned["int8"].bytes.weights == kernels + 4 * outputs + 2 * rest


def test_a_float32_plan_is_what_the_compiled_step_holds(planned: dict[str, Any]):
    work = make_workload(TINY, Sizes(9, 3, 13))
    examples = example_shapes(work, 4)
    step = work.step.lower(state_shapes(work, examples), work.params, examples).compile()
    memory = step.memory_analysis()
    whole = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    assert planned["float32"].bytes.peak == pytest.approx(whole, rel=0.05)
    assert planned["int8"].bytes.activations < planned["float32"].bytes.activations


def test_flops_are_those_of_the_products(planned: dict[str, Any]):
    """Of the trunk: two blocks of 24 x (40, 20, 20, 46, 46) and back, on 3 x 4 texts of 9."""
    rows, d, heads, hidden = 3 * 4 * 9, 24, 4, 46
    kernels = d * 40 + 2 * d * 20 + 40 * d + 3 * d * hidden
    attention = 2 * 9 * heads * 10
    products = 2 * 2 * rows * (kernels + attention)
    made = planned["float32"]
    assert products < made.flops_trunk < 1.3 * products
    assert made.flops_step == made.flops_trunk + made.flops_tail
    assert {p.flops_step for p in planned.values()} == {made.flops_step}


def test_a_streamed_trunk_is_counted_apart(planned: dict[str, Any]):
    """It is read once, before the first step: the rest is what the whole step has beside it."""
    whole, tail = planned["float32"], make_plan(TINY, make_mesh(1, 1), parts="tail", **SETTING)
    first = tail.streaming
    assert whole.streaming is None and first is not None
    assert first.flops_token * 3 * 4 * 9 == pytest.approx(whole.flops_trunk, rel=0.01)
    assert tail.flops_step == pytest.approx(whole.flops_tail, rel=0.01)
    kernels = 24 * 40 + 2 * 24 * 20 + 40 * 24 + 3 * 24 * 46
    embedding = TINY["vocab_size"] * 24
    assert first.bytes_read == 2 * (embedding + 2 * (kernels + 2 * 24))
    assert first.states_token == 2 * 24
    assert tail.params == whole.params
    assert tail.bytes.weights == whole.bytes.weights // 2 - 2 * 2 * (kernels + 2 * 24)


def test_a_card_must_have_room_to_spare():
    assert cards_for(12 * 10**9) == CARDS
    assert cards_for(int(23.9e9)) == (40, 80, 141)
    assert cards_for(150 * 10**9) == ()


def test_a_mesh_splits_weights_and_edits(tmp_path: Path):
    """Four virtual devices, in a process of its own."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY | {"vocab_size": 64, "head_dim": 12}))

    def command(mesh: str, batch: int) -> tuple[Any, Path]:
        out = tmp_path / f"{mesh}.json"
        line = [
            sys.executable, "-m", "experiments.plan", "--model", str(folder), "--mesh", mesh,
            "--batch", str(batch), "--length", "9", "--answers", "3", "--rank", "13",
            "--dtype", "float32", "--json", str(out),
        ]  # fmt: skip
        return subprocess.run(line, capture_output=True, text=True, check=False), out

    found = {}
    for mesh in ("1x1", "2x2"):
        done, out = command(mesh, 4)
        assert not done.returncode, done.stderr
        assert "estimate" in done.stdout
        found[mesh] = json.loads(out.read_text())
    assert "3 edits do not divide over 2" in command("2x2", 3)[0].stderr
    one, four = found["1x1"], found["2x2"]
    assert set(one) >= {
        "params", "flops_step", "flops_trunk", "flops_tail", "bytes", "fits", "seconds",
    }  # fmt: skip
    assert set(one["bytes"]) >= {"weights", "editor", "optimizer", "activations", "peak"}
    norms = 4 * (2 * 5 + 1) * 24
    assert four["bytes"]["weights"] == (one["bytes"]["weights"] - norms) // 2 + norms
    for name in ("editor", "optimizer", "gradients"):
        assert four["bytes"][name] == one["bytes"][name]
    assert four["bytes"]["activations"] < one["bytes"]["activations"]
    assert four["flops_step"] == one["flops_step"]


def test_stored_in_bfloat16_all_is_half_as_large():
    shapes = {"a": {"kernel": jax.ShapeDtypeStruct((3, 5), jnp.float32)}}
    assert device_bytes(stored_shapes(shapes, "bfloat16")) == 30
    assert device_bytes(stored_shapes(shapes, "int8")) == 15 + 4 * 5


@pytest.mark.parametrize("text", ["2", "0x1", "2x", "axb", "1x2x3"])
def test_a_mesh_that_is_none(text: str):
    with pytest.raises(ValueError, match="DATAxMODEL"):
        parse_mesh(text)


def test_what_cannot_be_planned(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no-such-model.*distilgpt2"):
        plan(PlanConfig("no-such-model"))
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "mamba"}')
    with pytest.raises(ValueError, match=r"mamba.*not implemented.*t5"):
        plan(PlanConfig(str(path)))
    path.write_text("[1]")
    with pytest.raises(ValueError, match="model_type"):
        plan(PlanConfig(str(path)))
