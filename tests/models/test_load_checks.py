"""What a config claims is held against the file before anything is built of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

import mend_jax as mj
from mend_jax.models.published import config_of
from mend_jax.weights import WeightsError

pytest_plugins = ["finished_run"]


@pytest.fixture
def folder(tiny_files: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_files.model, tmp_path / "model"))


def say(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("count", [2**31 - 1, 10**90, 1000], ids=["int32", "googol", "thousand"])
def test_more_layers_than_tensors(folder: Path, count: int):
    say(folder, num_hidden_layers=count)
    with pytest.raises(WeightsError, match=f"model: its config says num_hidden_layers {count:,}"):
        mj.load(str(folder))


def test_a_plan_for_more_layers_than_any_model(folder: Path):
    say(folder, num_hidden_layers=2**31 - 1)
    with pytest.raises(WeightsError, match="config.json: its config says num_hidden_layers 2,147"):
        config_of(str(folder))


def test_sizes_that_the_file_has_not_are_said_before_their_room(folder: Path):
    say(folder, vocab_size=2**50)
    with pytest.raises(WeightsError, match="embed_tokens.weight: has shape .* expected .112589990"):
        mj.load(str(folder))


def test_what_else_a_file_holds_is_said(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.final.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="model.norm.weight: missing(.|\n)*final"):
        mj.load(str(folder))


@pytest.mark.parametrize("kind", [3, None, ["llama"], {}])
def test_a_model_type_that_is_no_text(folder: Path, kind: Any):
    say(folder, model_type=kind)
    with pytest.raises(ValueError, match="is not implemented"):
        mj.load(str(folder))


def test_checksums_are_of_the_file_in_whatever_dtype(folder: Path):
    found = [mj.load(str(folder), dtype=dtype).checksums for dtype in ("float32", "int8")]
    assert found[0] == found[1] and len(found[0]) == 22 and "tokenizer" in found[0]
    assert len(set(found[0].values())) > 15
