"""How all tests run, and what several need: a tiny Llama whose dimensions all differ, and the one
real model."""

import os
import shutil
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from mend_jax.models.llama import Llama, LlamaConfig
from mend_jax.models.registry import Base, load

EVERYWHERE: dict[str, bool | float | str] = {
    "jax_disable_most_optimizations": True,  # compiling is most of the time here
    "jax_numpy_rank_promotion": "raise",
    "jax_platforms": "cpu",  # also where a plugin for GPUs is installed
    "jax_persistent_cache_min_compile_time_secs": 0.1,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}
"""JAX's settings here and, as environment variables, in all processes that tests start."""

QUICK_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
"""XLA's flags with which compiling takes about half of its time. They are JAX 0.10's: XLA ends the
process at a flag that it does not know."""

KEPT = 2**30
"""Bytes of compiled programs beyond which a session starts with none."""


def pytest_configure(config: pytest.Config) -> None:
    """Sets JAX; programs are compiled once for all workers, child processes and later sessions.

    They are kept in pytest's own cache (`--cache-clear` forgets them), under the hash of the
    program: what is traced, and how often, does not change.
    """
    programs = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if programs is None:  # not a worker's, not a child's
        folder = config.cache.mkdir("jax")
        if sum(file.stat().st_size for file in folder.iterdir()) > KEPT:
            shutil.rmtree(folder)
        programs = str(folder)
        if jax.__version_info__ < (0, 11):
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}"
        # two workers have two cores: PyTorch's threads would wait for them, spinning
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name, value in (EVERYWHERE | {"jax_compilation_cache_dir": programs}).items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it


def promoting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which may mix dtypes."""

    @wraps(function)
    def free(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return free


def scheduled(*args: Any) -> optax.Schedule:
    """optax's schedule, which divides a count of steps by another."""
    return promoting(warm_up_then_cosine(*args))


# Third parties that do: Adam raises a float to an integer, LayerNorm takes bfloat16 to float32.
warm_up_then_cosine = optax.warmup_cosine_decay_schedule
optax.warmup_cosine_decay_schedule = scheduled
optax.tree.bias_correction = promoting(optax.tree.bias_correction)
nn.LayerNorm.__call__ = promoting(nn.LayerNorm.__call__)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that the workers end together."""
    items.sort(key=lambda item: item.path.parent.name not in ("experiments", "runs"))


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
