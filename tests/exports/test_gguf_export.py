"""A base with edits in its weights, as a GGUF file that our own reader takes."""

import json
from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest
import torch
from any_edit import an_edit
from compare import assert_close
from configurations import KINDS, raw_config, torch_model
from gguf_files import MADE, write
from gguf_files import torch_model as gguf_model
from tiny_run import byte_level_bpe, save_folder, some_records
from transformers import AutoModelForCausalLM, AutoTokenizer

import mend_jax as mj
from mend_jax.exports.card import Card
from mend_jax.exports.folder import ExportError
from mend_jax.exports.gguf import export_gguf
from mend_jax.exports.huggingface import export_huggingface
from mend_jax.models.registry import Base

TEXTS = [record.prompt for record in some_records(0, 3)]


def same_model(base: Base, edit: Any, path: Path) -> Base:
    """The file has the merged weights and the tokenizer, and says what the base says."""
    again = mj.load(str(path))
    assert_close(again.params, jax.device_get(mj.merge(base.params, edit)), 1e-6)
    tokens = np.arange(9, dtype=np.int32)[None]
    run = [jax.jit(x.model.apply)({"params": x.params}, mj.Inputs(tokens)) for x in (base, again)]
    assert np.abs(run[0] - run[1]).max() > 1e-3
    return again


def tokenized(folder: Path) -> Path:
    """With a tokenizer of its own."""
    byte_level_bpe(TEXTS, 300).save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_the_file_is_the_merged_model(name: str, tmp_path: Path):
    """Queries and keys in llama.cpp's order, biases and head norms too; in two heads and more."""
    kind = next(x for x in KINDS if x.partition(",")[0] == name)
    raw = raw_config(kind, {"vocab_size": 300})
    torch_model(kind, raw).save_pretrained(tmp_path / "base")
    base = mj.load(str(tokenized(tmp_path / "base")))
    edit = an_edit(base)
    found = export_gguf(base, edit, tmp_path / "out", Card([(text, "Rome") for text in TEXTS]))
    assert found.changed > 0.99
    again = same_model(base, edit, tmp_path / "out" / "model.gguf")
    for text in TEXTS:
        assert again.tokenizer.encode(text).ids == base.tokenizer.encode(text).ids
    assert "library_name: gguf" in (tmp_path / "out" / "README.md").read_text()


def test_a_base_from_a_file_says_all_that_its_file_says(tmp_path: Path):
    """Once more through a file: chat template, names, and settings that are not read."""
    source = save_folder(tmp_path / "base")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    export_gguf(mj.load(str(source)), {}, tmp_path / "first")
    base = mj.load(str(tmp_path / "first" / "model.gguf"))
    edit = an_edit(base)
    export_gguf(base, edit, tmp_path / "second")
    same_model(base, edit, tmp_path / "second" / "model.gguf")
    said = []
    for name in ("first", "second"):
        fields = gguf.GGUFReader(tmp_path / name / "model.gguf").fields
        said.append({key: field.contents() for key, field in fields.items()})
    assert said[0] == said[1] and said[0]["tokenizer.chat_template"] == "{{ messages }}"


@pytest.mark.parametrize("name", MADE)
def test_a_file_of_every_architecture_is_written_again(name: str, tmp_path: Path):
    """What its converter added to norms, too."""
    path = write(tmp_path / "base.gguf", name, gguf_model(MADE[name]))
    base = mj.load(str(path))
    edit = an_edit(base)
    export_gguf(base, edit, tmp_path / "out")
    again = mj.load(str(tmp_path / "out" / "model.gguf"))
    assert again.config == base.config
    assert_close(again.params, jax.device_get(mj.merge(base.params, edit)), 1e-6)


def test_a_base_from_a_file_becomes_a_folder_of_transformers(tmp_path: Path):
    """With the tokens, and the chat template, that the file has."""
    source = save_folder(tmp_path / "base")
    (source / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    export_gguf(mj.load(str(source)), {}, tmp_path / "file")
    base = mj.load(str(tmp_path / "file" / "model.gguf"))
    edit = an_edit(base)
    export_huggingface(base, edit, tmp_path / "out")
    tokens = np.arange(9, dtype=np.int32)[None]
    params = mj.merge(base.params, edit)
    ours = np.asarray(jax.jit(base.model.apply)({"params": params}, mj.Inputs(tokens)))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens).long()).logits.numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-5 * np.abs(wanted).max())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == base.tokenizer.encode(text).ids
    asked = [{"role": "user", "content": "Where?"}]
    assert tokenizer.apply_chat_template(asked, tokenize=False) == "Where?!"


def test_bfloat16_halves_the_matrices(tmp_path: Path):
    base = mj.load(str(save_folder(tmp_path / "base")))
    edit = an_edit(base)
    found = export_gguf(base, edit, tmp_path / "out", dtype="bfloat16")
    assert 0 < found.error < 0.01
    tensors = gguf.GGUFReader(tmp_path / "out" / "model.gguf").tensors
    kinds = {(len(tensor.shape), tensor.tensor_type.name) for tensor in tensors}
    assert kinds == {(1, "F32"), (2, "BF16")}
    again = mj.load(str(tmp_path / "out" / "model.gguf"))
    assert_close(again.params, jax.device_get(mj.merge(base.params, edit)), 0.01)


def test_what_has_no_place_in_a_file_is_refused(tmp_path: Path):
    """Another family; a setting; a tokenizer. Each says what to do, and nothing is left."""
    kind = next(x for x in KINDS if x.partition(",")[0] == "gpt2")
    torch_model(kind, raw_config(kind, {})).save_pretrained(tmp_path / "gpt2")
    source = save_folder(tmp_path / "base")
    whole = json.loads((source / "config.json").read_text())
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
              "rope_theta": 10000.0}  # fmt: skip
    turned = save_folder(tmp_path / "turned")
    (turned / "config.json").write_text(json.dumps(whole | {"rope_parameters": llama3}))
    spaces = save_folder(tmp_path / "spaces")
    tokenizer = json.loads((spaces / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    (spaces / "tokenizer.json").write_text(json.dumps(tokenizer))
    cases = [
        ("gpt2", "a model of type 'gpt2' is not written as gguf"),
        ("turned", "settings that a GGUF file does not hold here: rope_scaling"),
        ("spaces", "the tokenizer is no byte-level BPE that cuts text as"),
    ]
    for name, message in cases:
        base = mj.load(str(tmp_path / name))
        with pytest.raises(ExportError, match=f"{message}.*convert_hf_to_gguf.py"):
            export_gguf(base, an_edit(base), tmp_path / "out")
    assert not [x.name for x in tmp_path.iterdir() if "out" in x.name]
