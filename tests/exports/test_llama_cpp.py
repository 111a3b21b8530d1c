"""A GGUF file with edits in its weights, as llama.cpp itself reads it (where that is installed)."""

from pathlib import Path

import numpy as np
import pytest
from any_edit import an_edit
from configurations import KINDS, raw_config, torch_model
from tiny_run import byte_level_bpe, some_records

import mend_jax as mj
from mend_jax.exports.gguf import export_gguf

llama_cpp = pytest.importorskip("llama_cpp")

TEXTS = [record.prompt for record in some_records(0, 3)]
WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "vocab_size": 300}


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_llama_cpp_reads_the_merged_model(name: str, tmp_path: Path):
    kind = next(x for x in KINDS if x.partition(",")[0] == name)
    torch_model(kind, raw_config(kind, WIDE)).save_pretrained(tmp_path / "base")
    byte_level_bpe(TEXTS, 300).save(str(tmp_path / "base/tokenizer.json"))
    base = mj.load(str(tmp_path / "base"))
    edit = an_edit(base)
    export_gguf(base, edit, tmp_path / "out")
    file = str(tmp_path / "out/model.gguf")
    theirs = llama_cpp.Llama(file, n_ctx=64, logits_all=True, verbose=False)
    for text in TEXTS:
        tokens = base.tokenizer.encode(text).ids
        assert theirs.tokenize(text.encode(), add_bos=False, special=True) == tokens
        theirs.reset()
        theirs.eval(tokens)
        found = np.asarray(theirs.scores[: len(tokens)])
        merged = {"params": mj.merge(base.params, edit)}
        ours = base.model.apply(merged, mj.Inputs(np.asarray(tokens, np.int32)[None]))[0]
        np.testing.assert_allclose(found, ours, atol=2e-3 * float(np.abs(ours).max()))
