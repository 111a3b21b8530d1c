"""`mend-jax train` for any model: it says what it will take, and ends with an edit to type."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import byte_level_bpe
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM
from typed import typed

from mend_jax.data.sources.facts import facts_records


def tiny_model(kind: str, folder: Path) -> Path:
    """A folder with random weights, as transformers saves it."""
    torch.manual_seed(0)
    texts = [text for r in facts_records("train")[:60] for text in (r.prompt, f" {r.target}")]
    tokenizer = byte_level_bpe(texts, 600)
    vocab = tokenizer.get_vocab_size()
    made: Any
    if kind == "gpt2":
        made = GPT2LMHeadModel(
            GPT2Config(vocab_size=vocab, n_positions=128, n_embd=16, n_layer=3, n_head=2)
        )
    else:
        made = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=vocab, hidden_size=16, intermediate_size=28, num_hidden_layers=3,
                num_attention_heads=2, num_key_value_heads=1, head_dim=8,
                max_position_embeddings=128,
            )
        )  # fmt: skip
    made.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
def test_your_model(kind: str, tmp_path: Path):
    """On the project's facts, without a file, with a scope or without; the last line is a command
    that makes an edit."""
    model, out = tiny_model(kind, tmp_path / "model"), tmp_path / "an editor"
    block = "h_2" if kind == "gpt2" else "layers_2"
    few = ("--max-train", 12, "--max-validation", 4, "--dev", 4, "--steps", 3, "--batch", 2)
    rest = ("--rank", 4, "--calibrate", 4, "--sites", f"{block}/mlp/.*", "--log-every", 1)
    rest += ("--scope-steps", 2, "--scope-batch", 8) if kind == "gpt2" else ("--no-scope",)
    ended = typed("mend-jax", "train", "--model", model, "--out", out, *few, *rest)
    assert ended.code == 0, ended.error
    told = re.findall(
        r"about ([\d,]+) (s|minutes) for 3 steps of ([\d.,e+-]+) GFLOP(?:, and the training of the "
        r"scope)?; about ([\d.e+-]+) GB of memory: base [\d.e+-]+, editor [\d.e+-]+, cached states",
        ended.out,
    )
    assert len(told) == 1 and float(told[0][3]) > 0
    assert ended.out.index("GFLOP") < ended.out.index("reliability")
    line = shlex.split(ended.out.strip().splitlines()[-1])
    assert line[:2] == ["mend-jax", "edit"] and str(out) in line
    edited = typed(*line[:1], *line[1:])
    assert edited.code == 0, edited.error
    assert "before:" in edited.out and "after:" in edited.out
