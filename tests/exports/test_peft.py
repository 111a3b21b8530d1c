"""Edits as a LoRA adapter: what PEFT merges is what we merge."""

import json
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from any_edit import an_edit
from configurations import KINDS, raw_config, torch_model
from tiny_run import save_folder

import mend_jax as mj
from mend_jax.exports.folder import ExportError
from mend_jax.exports.huggingface import export_huggingface
from mend_jax.exports.peft import export_peft, limits, low_rank
from mend_jax.factors import Dense, Factors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from peft import PeftModel


def adapted(model: Any, folder: Path) -> Any:
    """The model with the adapter, as PEFT loads it (which warns of transformers' own names)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(model, folder)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "phi3"])
def test_peft_merges_the_edit(name: str, tmp_path: Path):
    """Into the same weights as those that are merged here, in layers of different ranks."""
    kind = next(x for x in KINDS if x.partition(",")[0] == name)
    torch_model(kind, raw_config(kind, {})).save_pretrained(tmp_path / "base")
    base = mj.load(str(tmp_path / "base"))
    edit: dict[str, Any] = an_edit(base, rows=3)
    first = next(iter(edit))
    edit[first] = Factors(edit[first].u[:1], edit[first].delta[:1])
    if name == "phi3":  # several sites in one layer
        export_peft(base, edit, tmp_path / "lora", error=1e-5, one_rank=True)
    else:
        with pytest.warns(UserWarning, match="layers have different ranks, which llama.cpp"):
            found = export_peft(base, edit, tmp_path / "lora", error=1e-5)
        assert {x.rank for x in found.values()} == {1, 3}
    export_huggingface(base, edit, tmp_path / "merged")
    make = getattr(transformers, KINDS[kind].model).from_pretrained
    model = adapted(make(tmp_path / "base"), tmp_path / "lora")
    ours = make(tmp_path / "merged").state_dict()
    theirs = model.merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    for key, wanted in ours.items():
        far = (theirs[key] - wanted).abs().max()
        assert far <= 1e-5 * wanted.abs().max(), key
    told = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert told["fan_in_fan_out"] == (name == "gpt2")
    task = "SEQ_2_SEQ_LM" if name == "t5" else "CAUSAL_LM"
    assert told["task_type"] == task and "peft" in (tmp_path / "lora" / "README.md").read_text()


def test_the_rank_is_the_smallest_for_the_error():
    """Of a matrix with known singular values; the error that is told is the true one."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((d, 6)))[0] for d in (20, 30))
    sizes = np.array([1.0, 0.5, 0.1, 0.01, 1e-3, 1e-4])
    factors = Factors(jnp.asarray((left * sizes).T, jnp.float32), jnp.asarray(right.T, jnp.float32))
    matrix = np.asarray(factors.u.T @ factors.delta, np.float64)
    twice = Factors(*(jnp.concatenate([x, 0.0 * x]) for x in factors))
    for part in (factors, twice, Dense(jnp.asarray(matrix, jnp.float32))):
        for rank in range(1, 6):
            rest = np.linalg.norm(sizes[rank:]) / np.linalg.norm(sizes)
            found = low_rank(part, rest * 1.01)
            assert found.rank == rank
            true = np.linalg.norm(matrix - (found.b @ found.a).T) / np.linalg.norm(matrix)
            assert found.error == pytest.approx(rest, rel=0.05) and abs(true - rest) < 1e-5
            assert low_rank(part, rest * 0.99).rank == rank + 1
    nothing = low_rank(Factors(jnp.zeros((2, 4)), jnp.zeros((2, 5))), 1e-3)
    assert nothing.rank == 1 and not nothing.a.any() and nothing.error == 0.0


def test_one_rank_is_the_same_edit(tmp_path: Path):
    base = mj.load(str(save_folder(tmp_path / "base")))
    edit: dict[str, Any] = an_edit(base, rows=3)
    first = next(iter(edit))
    edit[first] = Factors(edit[first].u[:1], edit[first].delta[:1])
    found = export_peft(base, edit, tmp_path / "one", error=1e-6, one_rank=True)  # and no warning
    assert {x.rank for x in found.values()} == {3}
    with pytest.warns(UserWarning):
        own = export_peft(base, edit, tmp_path / "own", error=1e-6)
    for name, x in own.items():
        np.testing.assert_allclose(found[name].b @ found[name].a, x.b @ x.a, atol=1e-6)
    told = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert told["rank_pattern"] == {} and told["r"] == told["lora_alpha"] == 3


def test_limits_of_other_programs_are_told():
    assert limits({16}) == []
    assert "start it with --max-lora-rank 32" in limits({17})[0]
    assert "more than vLLM loads (512)" in limits({513})[0]
    assert len(limits({4, 17})) == 2


def test_what_cannot_be_written_is_refused(tmp_path: Path):
    base = mj.load(str(save_folder(tmp_path / "base")))
    edit = an_edit(base)
    said = "model.layers.0.mlp.gate_proj needs rank 3 for an error of 0.001, and 2 is"
    with pytest.raises(ExportError, match=said):
        export_peft(base, edit, tmp_path / "out", rank=2)
    with pytest.raises(ExportError, match="the edit is empty"):
        export_peft(base, {}, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ExportError, match="is not empty"):
        export_peft(base, edit, tmp_path / "full")
    assert not (tmp_path / "out").exists()


def test_words_under_the_adapter_are_those_of_the_merged_model(tmp_path: Path):
    base = mj.load(str(save_folder(tmp_path / "base")))
    edit = an_edit(base)
    export_peft(base, edit, tmp_path / "lora", error=1e-6)
    export_huggingface(base, edit, tmp_path / "merged")
    make = transformers.AutoModelForCausalLM.from_pretrained
    model = adapted(make(tmp_path / "base"), tmp_path / "lora")
    text = torch.arange(5, 9)[None]
    with torch.no_grad():
        logits = [model(text).logits for model in (model, make(tmp_path / "merged"))]
    np.testing.assert_allclose(*logits, atol=1e-4 * float(logits[0].abs().max()))
