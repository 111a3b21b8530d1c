"""Writes a base of a published model's shapes with random weights, to measure what a run takes.

    mend-jax make_random --model EleutherAI/gpt-j-6B --out DIR
    python -m experiments.train_gptj --preset streamed --model DIR --train FILE --validation FILE

A folder as transformers has it: config.json, safetensors in shards, and a tokenizer of 2,000 tokens
that knows the project's facts. One tensor is held at a time. The model knows nothing.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from mend_jax.commands.command import Command
from mend_jax.data.sources.facts import relations
from mend_jax.data.tokenizers import manner_of, train_tokenizer
from mend_jax.exports.folder import new_folder
from mend_jax.exports.format import Stored
from mend_jax.files import write_text
from mend_jax.models.published import PublishedModel, config_of
from mend_jax.models.registry import family_of
from mend_jax.option_checks import check_options
from mend_jax.option_types import OutFolder, Seed
from mend_jax.weights.export import stored_shape, write_shards
from mend_jax.weights.source import Expected

VOCABULARY = 2000
"""Tokens of the tokenizer; the table of embeddings has as many rows as the model's."""
SPREAD = 0.02
"""Of the matrices. Vectors are as they are before training: norms of one, biases of zero."""
SHARD = 4e9
"""Bytes of a file."""
STORED: dict[Stored, str] = {"float32": "F32", "bfloat16": "BF16"}


@dataclass(frozen=True, kw_only=True)
class MakeRandom:
    """Options of the weights."""

    model: PublishedModel
    """A built-in model, or a folder with a config.json."""
    out: OutFolder
    """Directory for the base; must be empty or absent."""
    dtype: Stored = "bfloat16"
    """Of the weights."""
    seed: Seed = 0
    """Of the weights."""


def make(config: MakeRandom) -> None:
    """Writes the folder, and says how large it is."""
    check_options(config)
    shape = dict(config_of(config.model))
    family = family_of(shape, config.model)
    expected = family.expected_weights(family.dimensions(shape, ()))
    texts = [p.format(s) + f" {o}" for r in relations() for s, o in r.facts for p in r.phrasings]
    tokenizer = train_tokenizer(manner_of(shape["model_type"]), texts, VOCABULARY)
    shapes = {name: stored_shape(one) for name, one in expected.items()}
    with new_folder(config.out) as folder:
        tensors = random_tensors(expected, config.dtype, config.seed)
        write_shards(folder, shapes, STORED[config.dtype], tensors, SHARD)
        write_text(folder / "config.json", json.dumps(shape, indent=1) + "\n")
        write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    count = sum(int(np.prod(x)) for x in shapes.values())
    print(f"{config.out}: {count:,} random parameters of {config.model}, {config.dtype}")


def random_tensors(
    expected: Mapping[str, Expected], dtype: Stored, seed: int
) -> Iterator[np.ndarray]:
    """Each tensor in the order of the table, as a file has it."""
    rng = np.random.default_rng(seed)
    for name, one in expected.items():
        size = stored_shape(one)
        if len(size) > 1:
            tensor = rng.standard_normal(size, np.float32) * np.float32(SPREAD)
        else:
            tensor = np.full(size, float(name.endswith("weight")), np.float32)
        yield tensor.astype(jnp.dtype(dtype))


COMMAND = Command(MakeRandom, make, __doc__)
