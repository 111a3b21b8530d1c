"""int8 kernels: the rounding they promise, and a base of them that is edited like any other."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from compare import assert_close, assert_equal
from transformers import Qwen2Config, Qwen2ForCausalLM

import mend_jax as mj
from mend_jax.models.layers import Linear
from mend_jax.models.quantize import float_kernel, quantize, quantize_kernel
from mend_jax.models.registry import Base, load
from mend_jax.models.stages import abstract_params
from mend_jax.sites import SiteError

SITES = ("layers_1/mlp/down_proj", "layers_1/self_attn/q_proj")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=parity.VOCABULARY,
        hidden_size=24,
        intermediate_size=46,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    path = tmp_path_factory.mktemp("qwen")
    parity.shaken(Qwen2ForCausalLM(config)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load(str(folder), dtype="int8")


def with_float_kernels(params: Any) -> Any:
    """The float model that the int8 one stands for: every kernel times its scale."""
    if not isinstance(params, dict):
        return params
    tree = {name: with_float_kernels(child) for name, child in params.items()}
    if "kernel" in tree:
        tree["kernel"] = float_kernel(params)
        del tree["scale"]
    return tree


def pair(base: Base) -> mj.Pair:
    case = parity.Case(seq2seq=False)
    labels = np.where(case.rows, np.roll(case.tokens, -1, axis=1), -100)
    labels[:, -1] = -100
    return mj.Pair(case.ours, jnp.asarray(labels, jnp.int32))


def test_rounding_to_nearest_per_output_channel():
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((7, 5)).astype(np.float32) * 10.0 ** np.arange(-2, 3)
    kernel[:, 3] = 0
    layer = quantize_kernel(jnp.asarray(kernel))
    assert layer["kernel"].dtype == jnp.int8 and layer["scale"].dtype == jnp.float32
    assert_close(layer["scale"] * 127, np.where(np.arange(5) == 3, 127, abs(kernel).max(0)), 1e-6)
    off = np.abs(np.asarray(float_kernel(layer)) - kernel)
    assert np.all(off <= np.asarray(layer["scale"]) * 0.5001)
    assert set(np.abs(layer["kernel"]).max(0)) == {0, 127}


def test_quantising_again_changes_nothing(base: Base):
    assert_equal(quantize(base.params), base.params)
    assert_close(quantize(with_float_kernels(base.params)), base.params, 1e-6)


def test_what_load_makes_is_what_quantize_makes(folder: Path, base: Base):
    """Tensor by tensor or all at once, on values or on shapes alone."""
    whole = quantize(load(str(folder)).params)
    assert_equal(base.params, whole)
    shapes = jax.eval_shape(quantize, abstract_params(base.model))
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype), base.params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == kinds
    assert base.params["layers_0"]["self_attn"]["q_proj"]["bias"].dtype == jnp.float32
    assert base.params["embedding"].dtype == jnp.float32


def test_over_a_mesh(folder: Path, base: Base):
    assert_equal(load(str(folder), mj.make_mesh(), "int8").params, base.params)


def test_logits_and_captured_factors_are_those_of_the_kernels_times_their_scales(base: Base):
    same = with_float_kernels(base.params)
    logits = [
        jax.jit(base.model.apply)({"params": p}, pair(base).inputs) for p in (base.params, same)
    ]
    assert_close(*logits, 1e-5)
    captured = jax.jit(mj.capture(mj.sequence_loss(base.model), at=SITES))
    assert_close(captured(base.params, pair(base)), captured(same, pair(base)), 1e-5)


def test_an_edit_stays_float32_beside_the_kernels(base: Base):
    """It does what it does merged into float kernels, though their int8 could not hold it."""
    loss = mj.sequence_loss(base.model)
    _, factors = jax.jit(mj.capture(loss, at=SITES))(base.params, pair(base))
    edit = mj.scale(factors, -1e-3)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(edit))
    merged = mj.merge(with_float_kernels(base.params), edit)
    before, after, wanted = (
        jax.jit(f)(p, pair(base))
        for f, p in ((loss, base.params), (mj.edited(loss, edit), base.params), (loss, merged))
    )
    assert abs(after - wanted) < 0.02 * abs(after - before) and after < before


def test_merging_into_int8_is_refused(base: Base):
    edit = {SITES[0]: mj.Dense(jnp.ones((46, 24)))}
    with pytest.raises(SiteError, match="down_proj' has an int8 kernel.*dtype=.float32.*`edited`"):
        mj.merge(base.params, edit)


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, np.dtype("float32"), "float32"])
def test_dtypes_by_name_or_as_jax_has_them(folder: Path, dtype: Any):
    found = load(str(folder), dtype=dtype)
    assert found.model.dtype == jnp.dtype(dtype)
    assert {x.dtype for x in jax.tree.leaves(found.params)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("dtype", ["fp8", "float16", jnp.int32, None])
def test_a_dtype_that_no_base_is_loaded_in(folder: Path, dtype: Any):
    with pytest.raises(ValueError, match="a base is loaded in float32, bfloat16, int8"):
        load(str(folder), dtype=dtype)


def test_real_model_in_int8(real_base: Base):
    """SmolLM2 says nearly the same."""
    tokens = jnp.asarray([real_base.tokenizer.encode("The capital of France is Paris, and").ids])
    logits = jax.jit(real_base.model.apply)
    wanted = logits({"params": real_base.params}, mj.Inputs(tokens))
    found = logits({"params": quantize(real_base.params)}, mj.Inputs(tokens))
    off = jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted)
    assert 1e-4 < off < 0.05
    assert jnp.array_equal(found.argmax(-1), wanted.argmax(-1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_kernel_is_kept_as_it_is_for_the_way_back(dtype: str):
    """What a product keeps has it in int8; its derivative is that of the float kernel."""
    layer = Linear(40, use_bias=False, dtype=jnp.dtype(dtype))
    kernel = jax.random.normal(jax.random.key(0), (24, 40))
    params = quantize({"kernel": kernel})
    x = jax.random.normal(jax.random.key(1), (5, 24), dtype)
    y, back = jax.vjp(lambda x: layer.apply({"params": params}, x), x)
    kept = [leaf for leaf in jax.tree.leaves(back) if leaf.shape == kernel.shape]
    assert {leaf.dtype for leaf in kept} == {jnp.dtype(jnp.int8)}
    (found,) = back(jnp.ones_like(y))
    assert found.dtype == x.dtype
    wanted = np.broadcast_to(float_kernel(params).sum(1), x.shape)
    assert_close(found.astype(jnp.float32), wanted, 1e-5 if dtype == "float32" else 0.05)
