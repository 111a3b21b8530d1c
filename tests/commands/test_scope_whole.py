"""Scopes of models that read a text as a whole: trained, saved, held, and asked where they act."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_equal
from tiny_run import Files, byte_level_bpe, options, some_records
from typed import typed

import mend_jax as mj
from mend_jax.data.records import Record, write_records
from mend_jax.runs.run import run

KINDS = ("seq2seq", "classifier")
CLASSES = ("REFUTES", "SUPPORTS")


def as_claims(records: list[Record]) -> list[Record]:
    """The same, to be judged."""

    def judged(text: str) -> str:
        return CLASSES[len(text) % 2]

    return [
        record._replace(
            target=judged(record.target),
            locality=tuple(x._replace(answer=judged(x.answer)) for x in record.locality),
        )
        for record in records
    ]


def save_folder(folder: Path, kind: str) -> Path:
    """A random model as transformers saves it, and its tokenizer.json."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        T5Config,
        T5ForConditionalGeneration,
    )

    texts = [t for r in some_records(0, 40) for t in (r.prompt, *r.rephrases, f" {r.target}")]
    tokenizer = byte_level_bpe(texts)
    torch.manual_seed(0)
    size: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0}
    if kind == "seq2seq":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 28, "num_layers": 2, "num_heads": 2}
        start: dict[str, Any] = {"decoder_start_token_id": 0, "eos_token_id": 0}
        T5ForConditionalGeneration(T5Config(**size, **sizes, **start)).save_pretrained(folder)
    else:
        names = {"id2label": dict(enumerate(CLASSES)), "label2id": {"REFUTES": 0, "SUPPORTS": 1}}
        sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
        more: dict[str, Any] = {"intermediate_size": 28, "max_position_embeddings": 64}
        config = BertConfig(**size, **sizes, **more, **names)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_and_what_is_done_with_it(kind: str, tmp_path: Path):
    def records(start: int, n: int) -> list[Record]:
        found = some_records(start, n)
        return found if kind == "seq2seq" else as_claims(found)

    model = save_folder(tmp_path / "base", kind)
    files = Files(model, tmp_path / "train.jsonl", tmp_path / "validation.jsonl")
    write_records(files.train, records(0, 24))
    write_records(files.validation, records(60, 8))
    said: list[str] = []
    scope: dict[str, Any] = {"sites": "", "scope": True, "scope_steps": 20, "scope_batch": 8}
    config = options(files, tmp_path / "run", **scope)
    made = run(config, said.append)
    assert made is not None and any("default sites are edited: it reads" in text for text in said)
    again = mj.load_editor(tmp_path / "run")
    assert_equal(again.state, made.saved.state)
    assert again.config["scoped"]["scope"]["scope"] == "two_keys_of_text"
    last = "decoder/" if kind == "seq2seq" else "block_3/"
    assert again.sites and all(site.startswith(last) for site in again.sites)

    line = ("evaluate", "--editor", tmp_path / "run", "--records", files.validation, "--k", 8)
    ended = typed(*line, "--out", tmp_path / "held")
    assert ended.code == 0, ended.error
    metrics = json.loads((tmp_path / "held/results.json").read_text())["metrics"]
    assert {"found", "wrong", "fired"} <= set(metrics)
    ended = typed(*line, "--sequential", 8, "--out", tmp_path / "in_turn")
    assert ended.code == 1 and "--k" in ended.error
    ended = typed(*line[:-2], "--sequential", 8, "--out", tmp_path / "in_turn")
    assert ended.code == 0, ended.error
    assert json.loads((tmp_path / "in_turn/results.json").read_text())["metrics"] == metrics
    ended = typed(*line, "--elsewhere", 2, "--out", tmp_path / "elsewhere")
    assert ended.code == 1 and "--elsewhere looks at running text" in ended.error

    target = "Oslo" if kind == "seq2seq" else "SUPPORTS"
    ended = typed(
        "edit", "--editor", tmp_path / "run", "--prompt", "Person 300 lives in",
        "--target", target, "--ask", "Person 7 likes to eat a", "--show-scope",
    )  # fmt: skip
    assert ended.code == 0, ended.error
    assert "Person 300 lives in" in ended.out and "subject" in ended.out


def test_padding_is_not_read():
    """Keys of a text are the same, whatever it is padded with."""
    scope = mj.two_keys_of_text((1, 2), heads=2, width=4, subject=8, relation=8, hidden=8)
    phi = scope.init(jax.random.key(0), 6)
    rng = np.random.default_rng(0)
    short = rng.standard_normal((2, 5, 2, 6)).astype(np.float32)
    long = np.concatenate([short, 9 * np.ones((2, 3, 2, 6), np.float32)], axis=1)
    mask = np.arange(8)[None].repeat(2, 0) < 5
    alone = scope.keys(phi, jnp.asarray(short))
    padded = scope.keys(phi, jnp.asarray(long), jnp.asarray(mask))
    for a, b in zip(alone, padded, strict=True):
        assert a.shape[1] == 1
        np.testing.assert_allclose(a, b, atol=1e-6)
