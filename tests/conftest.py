"""What several tests need: a tiny Llama whose dimensions all differ, and the one real model."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import pytest

from mend_jax.models.llama import Llama, LlamaConfig
from mend_jax.models.registry import Base, load

jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of the time here

TINY = LlamaConfig(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=46,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=10,
)
"""No two dimensions agree (24, 46, 61; 40 query and 20 key features), so none is mistaken."""


class Tiny(NamedTuple):
    """A model and its parameters."""

    model: nn.Module
    params: Any


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    model = Llama(TINY)
    params = model.init(jax.random.key(0), model.example_inputs())["params"]
    rng = np.random.default_rng(0)

    def shake(x: jax.Array) -> jax.Array:
        return x + 0.2 * rng.standard_normal(x.shape).astype(np.float32)

    return Tiny(model, jax.tree.map(shake, params))


@pytest.fixture(scope="session")
def real_base() -> Base:
    """SmolLM2-135M; from the package index, or a warm cache."""
    return load("smollm2-135m")
