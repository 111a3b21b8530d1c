"""GGUF files of each architecture, written as llama.cpp's converter writes them from Hugging Face's
weights: the model that is read is the model that was written."""

from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from compare import assert_close
from gguf import GGMLQuantizationType
from gguf_files import MADE, torch_model, write

from mend_jax.models.registry import load
from mend_jax.models.stages import Inputs
from mend_jax.weights import WeightsError, read_gguf


@pytest.mark.parametrize("name", MADE)
def test_the_model_is_the_one_that_was_written(name: str, tmp_path: Path):
    theirs = torch_model(MADE[name])
    base = load(str(write(tmp_path / "model.gguf", name, theirs)))
    tokens = np.random.default_rng(0).integers(3, parity.VOCABULARY, (2, 21))
    ours = jax.jit(base.model.apply)({"params": base.params}, Inputs(jnp.asarray(tokens)))
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens)).logits
    assert_close(np.asarray(ours), wanted.numpy(), 1e-5)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """A model in parts, the first of which holds the metadata."""
    model = torch_model(MADE["qwen3"])
    write(tmp_path / "whole.gguf", "qwen3", model)
    write(tmp_path / "model.gguf", "qwen3", model, split_max_tensors=9)
    return sorted(tmp_path.glob("model-*.gguf"))


def test_parts_are_the_whole(parts: list[Path]):
    whole = read_gguf(parts[0].with_name("whole.gguf"))
    assert len(parts) == 3
    for part in parts:
        found = read_gguf(part)
        assert found.config == whole.config and set(found.names) == set(whole.names)
        for name in whole.names:
            np.testing.assert_array_equal(found.read(name), whole.read(name))


def test_parts_that_are_not_there_are_named(parts: list[Path]):
    parts[1].rename(parts[1].with_name("away.gguf"))
    with pytest.raises(WeightsError, match="00001-of-00003.gguf is one of 3 .* 1 .*00002-of-00003"):
        read_gguf(parts[0])


def test_parts_that_changed_places_are_refused(parts: list[Path]):
    for old, new in ((parts[1], "x"), (parts[2], parts[1].name), (parts[1].with_name("x"), "y")):
        old.rename(old.with_name(new))
    parts[1].with_name("y").rename(parts[2])
    with pytest.raises(WeightsError, match="00002-of-00003.gguf holds part 3 of 3 .* not what its"):
        read_gguf(parts[0])


def test_a_part_of_another_model_is_refused(parts: list[Path]):
    others = parts[0].parent / "others"
    others.mkdir()
    write(others / "model.gguf", "gemma", torch_model(MADE["gemma"]), split_max_tensors=8)
    (others / parts[2].name).rename(parts[2])
    with pytest.raises(WeightsError, match="its 3 parts hold .* tensors, .* not 25"):
        read_gguf(parts[0])


KINDS_OF_TENSORS = sorted(gguf.quants._type_traits, key=int)


@pytest.mark.parametrize("kind", KINDS_OF_TENSORS, ids=lambda kind: kind.name)
def test_quantised_tensors(kind: GGMLQuantizationType, tmp_path: Path):
    """Each kind that the gguf package dequantises is read as it dequantises it."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = np.random.default_rng(0).integers(1, 60, (2, 256 // block * size)).astype(np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    keys = {"block_count": 1, "context_length": 8, "embedding_length": 256}
    keys |= {"feed_forward_length": 8, "attention.head_count": 2, "vocab_size": 2}
    for key, value in keys.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tensor("token_embd.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights = read_gguf(tmp_path / "x.gguf")
    (name,) = weights.names
    assert weights.shapes[name] == (2, 256)
    np.testing.assert_array_equal(weights.read(name), gguf.dequantize(data, kind))
