"""A base of random weights: of the shapes asked for, loaded as any other, the same of one seed."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from typed import typed

import mend_jax as mj
from mend_jax.data.codec import codec_of
from mend_jax.data.decoding import answers

SHAPE = {
    "model_type": "llama", "vocab_size": 2100, "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("random")
    (path / "config.json").write_text(json.dumps(SHAPE))
    return path


def test_it_is_loaded_and_answers(folder: Path, tmp_path: Path):
    said = typed("make_random", "--model", folder, "--out", tmp_path / "base").out
    base = mj.load(str(tmp_path / "base"))
    sizes = [x.size for x in jax.tree.leaves(base.params)]
    assert f"{sum(sizes):,} random parameters" in said
    norm = np.asarray(base.params["layers_0"]["input_layernorm"]["scale"])
    kernel = np.asarray(base.params["layers_1"]["mlp"]["up_proj"]["kernel"])
    assert np.all(norm == 1) and kernel.shape == (16, 24) and 0.015 < kernel.std() < 0.025
    assert base.tokenizer.get_vocab_size() <= 2000
    asked = [codec_of(base).prompt("The capital of France is")]
    ((_, said_next),) = answers(base, asked, 3, 1)
    assert all(0 <= token < SHAPE["vocab_size"] for token in said_next)


def test_one_seed_gives_the_same_and_another_gives_others(folder: Path, tmp_path: Path):
    files = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        typed("make_random", "--model", folder, "--out", tmp_path / out, "--seed", seed)
        files.append((tmp_path / out / "model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_int8_is_not_written(folder: Path, tmp_path: Path):
    done = typed("make_random", "--model", folder, "--out", tmp_path / "x", "--dtype", "int8")
    assert done.code != 0 and "--dtype" in done.error
    assert not (tmp_path / "x").exists()
