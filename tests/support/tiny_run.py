"""A tiny base as a Hugging Face folder, records to edit it with, and runs and commands on it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mend_jax.data.records import Locality, Record
from mend_jax.runs.options import TrainConfig
from mend_jax.runs.run import Run

ROOT = Path(__file__).parents[2]
CITIES = ("Paris", "Rome", "Oslo", "Lima", "Cairo", "Tokyo", "Quito", "Dakar")
FRUIT = ("apple", "pear", "plum", "fig")


def some_records(start: int, n: int) -> list[Record]:
    """Records about subjects `start`, `start` + 1, ..., each with two rephrases."""
    found = []
    for i in range(start, start + n):
        near = Locality(f"Person {i + 1} lives in", CITIES[(i + 3) % 8], "near")
        far = Locality(f"Person {i} likes to eat a", FRUIT[i % 4], "far")
        found.append(
            Record(
                f"Person {i} lives in",
                CITIES[i % 8],
                (f"The home of person {i} is", f"Where is person {i}? In"),
                (near, far),
                f"Person {i}",
            )
        )
    return found


def byte_level_bpe(texts: list[str], vocab_size: int = 330) -> Tokenizer:
    """A byte-level BPE tokenizer, as the GPT-2 and Llama 3 families have, trained on the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_folder(folder: Path, seed: int = 0, layers: int = 2) -> Path:
    """A LlamaForCausalLM with random weights, as transformers saves it, and its tokenizer.json."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = [t for r in some_records(0, 40) for t in (r.prompt, *r.rephrases, f" {r.target}")]
    tokenizer = byte_level_bpe(texts)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        intermediate_size=28,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


class Files(NamedTuple):
    """The base folder and two records files: 24 training records, 10 to validate (2 known)."""

    model: Path
    train: Path
    validation: Path


def options(files: Files, out: Path, **changes: object) -> TrainConfig:
    """A run of a few steps; the last block is edited, so embedding and first block are trunk."""
    values = {
        "model": str(files.model),
        "train": files.train,
        "validation": files.validation,
        "dev": 4,
        "steps": 6,
        "batch": 3,
        "rank": 5,
        "alpha": 0.1,
        "learning_rate": 1e-3,
        "sites": r"layers_1/mlp/(up|down)_proj",
        "longest": 24,
        "log_every": 2,
        "evaluate_every": 3,
        "checkpoint_every": 3,
    }
    return TrainConfig(out=out, **(values | changes))


class Finished(NamedTuple):
    """One run that has been made, what it said, and where it is."""

    files: Files
    config: TrainConfig
    run: Run
    said: list[str]


def python_environment(tmp_path: Path) -> dict[str, str]:
    """For child processes: this checkout, quick compiling, caches of their own."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/support"))),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "MEND_JAX_CACHE": str(tmp_path / "cache"),
        "COLUMNS": "100",
    }


def start(tmp_path: Path, *arguments: object, **options: Any) -> subprocess.Popen:
    """`python ...` in a child process, output and errors as text."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=options.pop("env", None) or python_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
