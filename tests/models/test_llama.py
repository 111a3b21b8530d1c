"""The Llama family against Hugging Face's PyTorch modules, on the same weights."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from compare import assert_close
from conftest import Tiny
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import mend_jax as mj
from mend_jax.models.generate import generate
from mend_jax.models.llama import Llama, expected_weights
from mend_jax.models.llama_config import LlamaConfig as Dimensions
from mend_jax.models.llama_config import Qwen2Config as Qwen2Dimensions
from mend_jax.models.registry import Base, load
from mend_jax.models.settings import ConfigError
from mend_jax.models.stages import Inputs

SHAPE = dict(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=46,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=10,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LENGTHS = (21, 9, 14)  # of the sequences in the batch, padded to the right


def torch_model(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=5))
    elif kind == "qwen2":
        shape = {k: v for k, v in SHAPE.items() if k != "head_dim"}  # Qwen2 has no choice of it
        model = Qwen2ForCausalLM(Qwen2Config(**shape, eos_token_id=None))
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**SHAPE, eos_token_id=None))
    else:
        extra = {
            "untied": {},
            "tied": {"tie_word_embeddings": True},
            "llama3": {"rope_parameters": LLAMA3},
            "every head its own": {"num_key_value_heads": 4, "head_dim": 6},
        }[kind]
        model = LlamaForCausalLM(LlamaConfig(**(SHAPE | extra)))
    with torch.no_grad():
        for parameter in model.parameters():  # larger than at initialisation, and no norm is 1
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def batch() -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(0).integers(61, size=(len(LENGTHS), max(LENGTHS)))
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    return (tokens * mask).astype(np.int32), mask


def saved(model: Any, folder: Path) -> Base:
    model.save_pretrained(folder)
    return load(str(folder))


@pytest.mark.parametrize("kind", ["untied", "tied", "llama3", "every head its own", "mistral"])
def test_logits(kind: str, tmp_path: Path):
    theirs = torch_model(kind)
    base = saved(theirs, tmp_path)
    tokens, mask = batch()
    ours = jax.jit(base.model.apply)({"params": base.params}, Inputs(jnp.asarray(tokens)))
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask)).logits
    assert ours.dtype == jnp.float32
    assert_close(np.asarray(ours)[mask], wanted.numpy()[mask], 1e-5)


def test_llama3_scaling_is_read():
    """The tiny model above has wavelengths on both sides of both bounds."""
    config = LlamaConfig(**SHAPE, rope_parameters=LLAMA3).to_dict()
    dimensions = Dimensions.from_hf(config)
    assert dict(dimensions.rope_scaling) == {k: v for k, v in LLAMA3.items() if k[:5] != "rope_"}
    assert dimensions.rope_theta == 500.0
    old = config | {"rope_scaling": LLAMA3 | {"type": "llama3"}, "rope_theta": 500.0}
    del old["rope_parameters"]
    assert Dimensions.from_hf(old) == dimensions


def test_what_is_not_implemented_is_refused(tmp_path: Path):
    config = LlamaConfig(**SHAPE).to_dict()
    with pytest.raises(ConfigError, match="'proportional' is not supported.*llama3.*yarn are"):
        Dimensions.from_hf(config | {"rope_parameters": {"rope_type": "proportional"}})
    with pytest.raises(ConfigError, match="hidden_act = 'mish' is not supported"):
        Dimensions.from_hf(config | {"hidden_act": "mish"})
    for key, value in {"sliding_window": 5, "layer_types": ["full_attention"] * 2}.items():
        with pytest.raises(ConfigError, match=f"{key} = .* llama models have no such setting"):
            Dimensions.from_hf(config | {key: value})
    torch_model("untied").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(ValueError, match="'mamba' is not implemented.*llama"):
        load(str(tmp_path))


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_qwen(kind: str, tmp_path: Path):
    """Biases on queries, keys and values; norms of each head's queries and keys."""
    theirs, case = torch_model(kind), parity.Case(seq2seq=False)
    base = parity.saved(theirs, tmp_path)
    parity.assert_same_logits(theirs, base, case)
    sites = {
        "layers_0/self_attn/k_proj": "model.layers.0.self_attn.k_proj",
        "layers_1/mlp/up_proj": "model.layers.1.mlp.up_proj",
    }
    parity.assert_same_factors(theirs, base, case, sites)
    parity.assert_same_words(theirs, base, case)
    parity.assert_parts_are_the_model(base, case, "layers_1/mlp/up_proj")
    parity.assert_read_positions_are_the_full_logits(base, case)


def test_qwens_window_is_in_the_layers_after_the_first_few():
    config = Qwen2Config(**SHAPE).to_dict() | {"layer_types": None, "sliding_window": 5}
    read = Qwen2Dimensions.from_hf
    assert read(config).sliding_window is None
    config["use_sliding_window"] = True
    for first, window in ((0, [5, 5]), (1, [None, 5]), (2, [None] * 2), (28, [None] * 2)):
        assert list(map(read(config | {"max_window_layers": first}).window, (0, 1))) == window
    mixed = {"layer_types": ["sliding_attention", "full_attention"]}
    assert list(map(read(config | mixed).window, (0, 1))) == [5, None]
    for kinds in (["full_attention"], ["full_attention", "chunked_attention"]):
        with pytest.raises(ConfigError, match="layer_types"):
            read(config | {"layer_types": kinds})
    del config["use_sliding_window"]
    assert read(config).sliding_window is None


def test_dynamic_scaling_ends_where_it_would_begin():
    """Up to the model's own context there is none; beyond, texts are refused."""
    config = LlamaConfig(**SHAPE, max_position_embeddings=8).to_dict()
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    dimensions = Dimensions.from_hf(config | {"rope_parameters": dynamic})
    assert dimensions.longest == 8 and dimensions.rope_scaling == ()
    model = Llama(dimensions)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), model.example_inputs()))
    with pytest.raises(ValueError, match="9 positions are asked for .* this model has 8"):
        jax.eval_shape(model.apply, shapes, Inputs(jnp.zeros((1, 9), jnp.int32)))


def test_read_positions_are_the_full_logits_there(tiny: Tiny):
    tokens = jnp.asarray(batch()[0])
    read = jnp.asarray([[0, 20, 5], [8, 8, 1], [13, 2, 3]], jnp.int32)
    apply = jax.jit(lambda inputs: tiny.model.apply({"params": tiny.params}, inputs))
    everywhere = apply(Inputs(tokens))
    wanted = np.take_along_axis(np.asarray(everywhere), np.asarray(read)[..., None], axis=1)
    assert_close(apply(Inputs(tokens, read)), wanted, 1e-5)


def test_captured_factors_are_those_of_pytorch(tmp_path: Path):
    theirs = torch_model("untied")
    base = saved(theirs, tmp_path)
    tokens, mask = batch()
    labels = np.where(mask, np.random.default_rng(1).integers(61, size=mask.shape), -100)
    labels[:, :4] = -100

    seen: dict[str, Any] = {}
    for layer, name in ((0, "up_proj"), (1, "up_proj"), (1, "down_proj")):
        site = f"layers_{layer}/mlp/{name}"

        def keep(_: Any, inputs: Any, output: Any, site: str = site) -> None:
            output.retain_grad()
            seen[site] = inputs[0], output

        theirs.model.layers[layer].mlp.get_submodule(name).register_forward_hook(keep)
    logits = theirs(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask)).logits
    value = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(labels).flatten().long(), ignore_index=-100
    )
    value.backward()

    pair = mj.Pair(Inputs(jnp.asarray(tokens)), jnp.asarray(labels, jnp.int32))
    loss = mj.sequence_loss(base.model)
    ours, captured = jax.jit(mj.capture(loss, list(seen)))(base.params, pair)
    assert_close(ours, value.item(), 1e-5)
    assert len(captured) == 3
    for site, factors in captured.items():
        u, delta = seen[site][0].detach(), seen[site][1].grad
        flat = mask.ravel()  # at padding the attention differs, and delta is 0
        assert_close(factors.u[flat], u.flatten(0, 1).numpy()[flat], 1e-5)
        assert_close(factors.delta, delta.flatten(0, 1).numpy(), 1e-5)
        assert not np.any(factors.delta[~flat])


def test_the_real_model_speaks(real_base: Base):
    prompt = "The capital of France is"
    ids = real_base.tokenizer.encode(prompt).ids
    tokens, lengths = jnp.asarray([ids], jnp.int32), jnp.asarray([len(ids)], jnp.int32)
    out = jax.jit(lambda p: generate(real_base.model, p, tokens, lengths, 3))(real_base.params)
    assert real_base.tokenizer.decode(np.asarray(out)[0].tolist()).startswith(" Paris")


def test_the_real_models_logits(real_base: Base):
    """The same weights in PyTorch, built from the dimensions that were read."""
    config = real_base.config
    with torch.device("meta"):
        theirs = LlamaForCausalLM(
            LlamaConfig(
                **{name: getattr(config, name) for name in SHAPE},
                max_position_embeddings=config.max_position_embeddings,
                rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            )
        )
    theirs = theirs.to_empty(device="cpu").eval()
    state = {}
    for name, (path, _, transposed, *_) in expected_weights(config).items():
        array: Any = real_base.params
        for key in path:
            array = array[key]
        array = np.array(array)
        state[name] = torch.from_numpy(array.T.copy() if transposed else array)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    theirs.load_state_dict(state, strict=True)
    rotary = theirs.model.rotary_emb  # its buffer is computed, not loaded
    rotary.inv_freq.copy_(type(rotary)(theirs.config).inv_freq)

    texts = ["The Louvre is a museum in Paris.", "Mount Everest lies between Nepal and"]
    rows = [real_base.tokenizer.encode(text).ids for text in texts]
    tokens = np.zeros((2, max(map(len, rows))), np.int32)
    mask = np.zeros_like(tokens, bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], mask[i, : len(row)] = row, True
    ours = jax.jit(real_base.model.apply)({"params": real_base.params}, Inputs(jnp.asarray(tokens)))
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask)).logits
    assert_close(np.asarray(ours)[mask], wanted.numpy()[mask], 1e-4)
