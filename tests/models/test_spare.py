"""Tensors of a checkpoint that the model does not use: known, or refused by name."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from configurations import KINDS, our_base, raw_config, tensors_of, torch_model
from safetensors.numpy import load_file, save_file

from mend_jax.models import registry
from mend_jax.weights import WeightsError

FAMILIES = [name for name in KINDS if "," not in name]
LAYER = {
    "gpt2": "transformer.h.0.mlp.c_fc",
    "gpt_neo": "transformer.h.0.attn.attention.q_proj",
    "gptj": "transformer.h.0.attn.q_proj",
    "gpt_neox": "gpt_neox.layers.0.attention.dense",
    "opt": "model.decoder.layers.0.fc1",
    "bert": "bert.encoder.layer.0.intermediate.dense",
    "roberta": "roberta.encoder.layer.0.intermediate.dense",
    "xlm-roberta": "roberta.encoder.layer.0.intermediate.dense",
    "camembert": "roberta.encoder.layer.0.intermediate.dense",
    "distilbert": "distilbert.transformer.layer.0.ffn.lin1",
    "bart": "model.encoder.layers.0.fc1",
    "t5": "encoder.block.0.layer.0.SelfAttention.q",
    "mt5": "encoder.block.0.layer.0.SelfAttention.q",
    "umt5": "encoder.block.0.layer.0.SelfAttention.q",
}
TIED = {
    "llama": ("lm_head.weight", "model.embed_tokens.weight"),
    "qwen2": ("lm_head.weight", "model.embed_tokens.weight"),
    "gpt2": ("lm_head.weight", "transformer.wte.weight"),
    "gpt_neo": ("lm_head.weight", "transformer.wte.weight"),
    "gpt_neox": ("lm_head.weight", "gpt_neox.embed_in.weight"),
    "opt": ("lm_head.weight", "model.decoder.embed_tokens.weight"),
    "bert": ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
    "roberta": ("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
    "distilbert": ("vocab_projector.weight", "distilbert.embeddings.word_embeddings.weight"),
    "bart": ("lm_head.weight", "model.shared.weight"),
    "t5": ("decoder.embed_tokens.weight", "shared.weight"),
}


def parts(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and tensors of a small model."""
    tied = {"tie_word_embeddings": True} if name in TIED else {}
    raw = raw_config(name, tied)
    return raw, tensors_of(torch_model(name, raw))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tensor_that_has_no_place_is_refused_by_name(name: str, tmp_path: Path):
    raw, tensors = parts(name)
    layer = LAYER.get(name, "model.layers.0.self_attn.o_proj")
    one = next(iter(tensors.values()))
    for extra in (f"{layer}.weight_scale", f"{layer}.unheard", f"{layer}.lora_A.weight", "score"):
        with pytest.raises(WeightsError, match=f"1 tensors .* no place: {extra}"):
            our_base(raw, tensors | {extra: one[:1]}, tmp_path)
    if f"{layer}.bias" not in tensors:
        with pytest.raises(WeightsError, match=f"no place: {layer}.bias"):
            our_base(raw, tensors | {f"{layer}.bias": one[0]}, tmp_path)


@pytest.mark.parametrize("name", TIED)
def test_a_tied_tensor_is_compared(name: str, tmp_path: Path):
    """Its own bytes again change nothing; other bytes are refused."""
    raw, tensors = parts(name)
    copy, original = TIED[name]
    alone = our_base(raw, {k: v for k, v in tensors.items() if k != copy}, tmp_path)
    both = our_base(raw, tensors | {copy: tensors[original]}, tmp_path)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), alone.params, both.params))
    other = tensors[original].clone()
    other[-1, -1] += 1e-3
    with pytest.raises(WeightsError, match=f"{copy} is not {original}"):
        our_base(raw, tensors | {copy: other}, tmp_path)


def test_what_old_files_hold_beside_the_weights_is_no_obstacle(tmp_path: Path):
    spare = {
        "gpt2": "transformer.h.0.attn.bias",
        "gpt_neo": "transformer.h.0.attn.attention.masked_bias",
        "gptj": "transformer.h.0.attn.masked_bias",
        "gpt_neox": "gpt_neox.layers.0.attention.masked_bias",
        "llama": "model.layers.0.self_attn.rotary_emb.inv_freq",
        "bert": "cls.seq_relationship.weight",
        "t5": "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
    }
    for name, extra in spare.items():
        raw, tensors = parts(name)
        our_base(raw, tensors | {extra: next(iter(tensors.values()))}, tmp_path)


def test_it_is_asked_of_folders_too(tmp_path: Path):
    raw = raw_config("llama", {})
    model = torch_model("llama", raw)
    model.save_pretrained(tmp_path)
    registry.load(str(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight_scale"
    save_file(tensors | {name: np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"{tmp_path} holds 1 tensors .*{name}"):
        registry.load(str(tmp_path))
