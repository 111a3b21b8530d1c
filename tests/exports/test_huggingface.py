"""A base with edits in its weights, as transformers loads it: the logits and words are ours."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import parity
import pytest
import torch
import transformers
from any_edit import an_edit
from compare import assert_close, assert_equal
from configurations import KINDS, raw_config, torch_model
from huggingface_hub import ModelCard
from tiny_run import save_folder

import mend_jax as mj
from mend_jax.exports.card import Card, hub_id
from mend_jax.exports.folder import ExportError
from mend_jax.exports.huggingface import export_huggingface
from mend_jax.factors import Factors
from mend_jax.weights import WeightsError
from mend_jax.weights.safetensors_file import map_safetensors


def families() -> list[str]:
    """One kind of configuration of each `model_type`."""
    found: dict[str, str] = {}
    for name in KINDS:
        found.setdefault(name.partition(",")[0], name)
    return list(found.values())


def saved(name: str, folder: Path) -> Path:
    """A small model of the kind, with random weights."""
    raw = raw_config(name, {})
    torch_model(name, raw).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", families())
def test_the_weights_of_every_family_are_merged(name: str, tmp_path: Path):
    """And nothing else: all else is bit for bit the base's; transformers misses nothing."""
    base = mj.load(str(saved(name, tmp_path / "base")))
    edit = an_edit(base)
    found = export_huggingface(base, edit, tmp_path / "out")
    assert found.changed > 0.99 and found.error < 1e-4
    again = mj.load(str(tmp_path / "out"))
    assert again.config == base.config
    assert_close(again.params, jax.device_get(mj.merge(base.params, edit)), 1e-6)
    kind = getattr(transformers, KINDS[name].model)
    _, said = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not said["missing_keys"] and not said["mismatched_keys"] and not said["unexpected_keys"]


SENTENCES = ("llama", "gpt2", "t5", "phi3")


@pytest.mark.parametrize("name", SENTENCES)
def test_transformers_says_what_we_say(name: str, tmp_path: Path):
    """Logits and 40 greedy tokens."""
    names = [x for x in KINDS if x.partition(",")[0] == name]
    folder = tmp_path / "base"
    longest = {"gpt2": {"n_positions": 80}, "t5": {}}.get(name, {"max_position_embeddings": 80})
    raw = raw_config(names[0], longest)
    torch_model(names[0], raw).save_pretrained(folder)
    base = mj.load(str(folder))
    edit = an_edit(base)
    export_huggingface(base, edit, tmp_path / "out", shard_gb=1e-5)
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 1
    kind = getattr(transformers, KINDS[names[0]].model)
    theirs = kind.from_pretrained(tmp_path / "out").eval()
    ours = base._replace(params=mj.merge(base.params, edit))
    seq2seq = base.model.kind == "seq2seq"
    case = parity.Case(seq2seq, getattr(base.config, "decoder_start_token_id", 0))
    parity.assert_same_logits(theirs, ours, case)
    theirs.generation_config.eos_token_id = None  # ours go on
    if seq2seq:
        parity.assert_same_words(theirs, ours, case, new=40)
    else:
        parity.assert_same_sentences(theirs, ours)


def test_bfloat16_says_what_is_left_of_an_edit(tmp_path: Path):
    """A small edit changes few of the weights: counted here by hand."""
    base = mj.load(str(save_folder(tmp_path / "base")))
    edit = {site: x for site, x in an_edit(base, 1e-4).items() if isinstance(x, Factors)}
    found = export_huggingface(base, edit, tmp_path / "out", dtype="bfloat16")
    stored = map_safetensors(tmp_path / "out" / "model.safetensors")
    assert {x.dtype for x in stored.values()} == {"BF16"}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.dtype == torch.bfloat16
    moved = changed = 0
    for site, part in edit.items():
        name = f"model.{site.replace('/', '.').replace('layers_', 'layers.')}.weight"
        got = stored[name].data.view(ml_dtypes.bfloat16).reshape(stored[name].shape)
        module = base.params
        for key in site.split("/"):
            module = module[key]
        was = np.asarray(module["kernel"]).T.astype(ml_dtypes.bfloat16)
        moved += np.count_nonzero(part.u.T @ part.delta)
        changed += np.count_nonzero(got != was)
    assert found.changed == pytest.approx(changed / moved, abs=1e-6) and 0 < found.changed < 0.5
    assert found.error > 0.3


def test_what_belongs_to_the_base_is_copied_and_told(tmp_path: Path):
    """Tokenizer, generation config; a card that the hub reads."""
    source = save_folder(tmp_path / "base")
    (source / "generation_config.json").write_text('{"eos_token_id": 7, "do_sample": true}')
    (source / "chat_template.jinja").write_text("{{ messages }}")
    base = mj.load(str(source))
    card = Card([("a | b", "Rome")], {"hold on their own prompt": 0.5}, ["Of a test."], ["make it"])
    export_huggingface(base, an_edit(base), tmp_path / "out", card)
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    was = json.loads((source / "config.json").read_text())
    assert config == was | {"dtype": "float32"}
    told = ModelCard.load(tmp_path / "out" / "README.md")
    assert told.data.library_name == "transformers" and "model-editing" in told.data.tags
    (result,) = told.data.eval_results
    assert (result.metric_name, result.metric_value) == ("hold on their own prompt", 0.5)
    assert "a \\| b | Rome" in told.text and "Of a test." in told.text and "make it" in told.text
    assert str(tmp_path) not in told.content
    assert hub_id("smollm2-135m") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert hub_id("openai-community/gpt2") == "openai-community/gpt2" and hub_id("./gpt2") is None


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path):
    source = save_folder(tmp_path / "base")
    base = mj.load(str(source))
    edit = an_edit(base)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    small = mj.load(str(source), dtype="int8")
    one = {"layers_1/mlp/up_proj": Factors(jnp.ones((1, 3)), jnp.ones((1, 28)))}
    cases = [
        (base, edit, "full", "full is not empty: give another folder"),
        (base, edit, "full/x", "x is a file"),
        (small, edit, "out", "loaded in int8, in which edits are rounded away"),
        (base, {"h_9/mlp/c_fc": edit["layers_1/mlp/up_proj"]}, "out", "no kernel at 'h_9/mlp/c_fc"),
        (base, one, "out", "is \\(16, 28\\), and the edit \\(3, 28\\)"),
    ]
    for of, change, out, message in cases:
        with pytest.raises(ExportError, match=message):
            export_huggingface(of, change, tmp_path / out)
    gone = base._replace(name=str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="does not exist"):
        export_huggingface(gone, edit, tmp_path / "out")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["base", "full"]


def test_an_empty_folder_is_taken(tmp_path: Path):
    base = mj.load(str(save_folder(tmp_path / "base")))
    (tmp_path / "out").mkdir()
    export_huggingface(base, {}, tmp_path / "out")
    assert_equal(mj.load(str(tmp_path / "out")).params, base.params)
