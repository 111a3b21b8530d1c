"""Mixtures of experts against Hugging Face's PyTorch modules, on the same weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
import transformers
from compare import assert_close, assert_equal
from safetensors.numpy import load_file

import mend_jax as mj
from mend_jax.models.quantize import float_kernel
from mend_jax.models.registry import Base, load
from mend_jax.weights.export import write_folder

SHAPE: dict[str, Any] = dict(
    vocab_size=parity.VOCABULARY,
    hidden_size=24,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_experts_per_tok=2,
    rms_norm_eps=1e-5,
    max_position_embeddings=64,
    eos_token_id=None,
    pad_token_id=0,
)
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", dict(num_local_experts=4, sliding_window=5)),
    "qwen3_moe": (
        "Qwen3Moe",
        dict(num_experts=6, moe_intermediate_size=12, head_dim=10, mlp_only_layers=[0]),
    ),
}
ATTENTION = ("layers_0/self_attn/k_proj", "layers_1/self_attn/o_proj", "layers_1/self_attn/v_proj")


@pytest.fixture(scope="module", params=list(MADE))
def both(request: Any, tmp_path_factory: Any) -> tuple[Any, Base]:
    name, own = MADE[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SHAPE, **own)
    theirs = parity.shaken(getattr(transformers, f"{name}ForCausalLM")(config))
    return theirs, parity.saved(theirs, tmp_path_factory.mktemp("moe"))


def pair() -> mj.Pair:
    case = parity.Case(seq2seq=False)
    labels = np.where(case.rows, np.roll(case.tokens, -1, axis=1), -100)
    labels[:, -1] = -100
    return mj.Pair(case.ours, jnp.asarray(labels, jnp.int32))


def test_logits_and_factors(both: tuple[Any, Base]):
    theirs, base = both
    case = parity.Case(seq2seq=False)
    parity.assert_same_logits(*both, case)
    sites: dict[str, Any] = {
        name: f"model.{name.replace('_', '.', 1).replace('/', '.')}" for name in ATTENTION
    }
    if base.config.dense:
        sites["layers_0/mlp/up_proj"] = "model.layers.0.mlp.up_proj"
    parity.assert_same_factors(*both, case, sites)
    parity.assert_parts_are_the_model(base, case, ATTENTION[1])
    parity.assert_read_positions_are_the_full_logits(base, case)


def test_sentences(both: tuple[Any, Base]):
    parity.assert_same_sentences(*both)


def test_the_router_is_a_site_and_experts_are_none(both: tuple[Any, Base]):
    """The router's factors are the gradient of its kernel, which PyTorch has at its weight."""
    theirs, base = both
    loss = mj.sequence_loss(base.model)
    _, captured = jax.jit(mj.capture(loss, ["layers_1/mlp/gate"]))(base.params, pair())
    theirs.zero_grad()
    logits = parity.Case(seq2seq=False).run_theirs(theirs).logits
    labels = torch.tensor(np.asarray(pair().labels)).flatten().long()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels).backward()
    wanted = theirs.model.layers[1].mlp.gate.weight.grad.numpy().T
    assert_close(mj.to_dense(captured["layers_1/mlp/gate"]), wanted, 1e-5)
    with pytest.raises(mj.SiteError, match="no linear layer is called 'layers_1/mlp/experts_0"):
        mj.capture(loss, ["layers_1/mlp/experts_0/up_proj"])(base.params, pair())


@pytest.mark.parametrize("both", ["qwen3_moe"], indirect=True)
def test_an_editor_is_trained_and_edits(both: tuple[Any, Base]):
    base = both[1]
    sites = mj.default_sites(base)
    assert set(sites) == {f"layers_{i}/self_attn/{n}_proj" for i in range(2) for n in "vo"}
    outputs = mj.outputs_of(base.model)
    editor, optimiser = mj.mend(outputs.loss, sites, rank=4), mj.editor_optimiser()
    step = mj.make_step(editor, mj.Objective(outputs.loss, outputs.logits), optimiser)
    example = mj.Example(*[jax.tree.map(lambda x: x[:1], pair())] * 3)
    batch = mj.Example(*[jax.tree.map(lambda x: x[:, None], pair())] * 3)
    state = mj.init_state(editor, optimiser, jax.random.key(0), base.params, example)
    state, metrics = step(state, base.params, batch)
    assert metrics.gradient_norm > 0
    edit = mj.scale(jax.jit(editor.edit)(state.editor, base.params, example), 100.0)
    before, after = (
        jax.jit(f)(base.params, example.edit)
        for f in (outputs.loss, mj.edited(outputs.loss, edit))
    )
    assert after < before
    assert_close(outputs.loss(mj.merge(base.params, edit), example.edit), after, 1e-5)


def test_int8_and_the_way_back(both: tuple[Any, Base], tmp_path: Any):
    """Experts are rounded like all kernels; a base that is written is the files it was read of."""
    theirs, base = both
    theirs.save_pretrained(tmp_path / "whole")
    small = load(str(tmp_path / "whole"), dtype="int8")
    expert = small.params["layers_1"]["mlp"]["experts_0"]["up_proj"]
    assert expert["kernel"].dtype == jnp.int8
    # the same model with the kernels that the rounded ones stand for
    rounded = jax.tree.map(
        lambda x: {"kernel": float_kernel(x)} if isinstance(x, dict) else x,
        small.params,
        is_leaf=lambda x: isinstance(x, dict) and "scale" in x and "kernel" in x,
    )
    run = jax.jit(lambda params: base.model.apply({"params": params}, pair().inputs))
    assert_close(run(small.params), run(rounded), 1e-4)
    table = base.family.expected_weights(base.config)
    write_folder(tmp_path / "again", theirs.config.to_dict(), base.params, table)
    written, read = (load_file(tmp_path / f / "model.safetensors") for f in ("again", "whole"))
    assert_equal(written, read)
