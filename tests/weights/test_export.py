"""A folder that is written is the base that is read, here and by Hugging Face."""

from pathlib import Path

import jax
import numpy as np
import torch
from compare import assert_equal
from tiny_run import save_folder
from transformers import AutoModelForCausalLM

import mend_jax as mj
from mend_jax.weights import read_folder
from mend_jax.weights.export import write_folder


def test_written_and_read(tmp_path: Path):
    first = save_folder(tmp_path / "first")
    base = mj.load(str(first))
    expected = base.family.expected_weights(base.config)
    write_folder(
        tmp_path / "second", read_folder(first).config, base.params, expected, base.tokenizer
    )
    again = mj.load(str(tmp_path / "second"))
    assert again.config == base.config
    assert_equal(again.params, base.params)
    assert again.tokenizer.encode("Person 3 lives in").ids == (
        base.tokenizer.encode("Person 3 lives in").ids
    )
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "second")
    tokens = np.arange(6)[None]
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens)).logits.numpy()
    ours = jax.jit(base.model.apply)({"params": base.params}, mj.Inputs(tokens.astype(np.int32)))
    np.testing.assert_allclose(ours, wanted, atol=1e-4)
