"""What a machine with a GPU does with this package, measured in minutes and without a download.

Four parts, each for itself: the benchmark's times; a short training run on random weights of a
T5's true shapes; its peak of memory against what the compiler laid out; and, of a small model of
every architecture, logits and captured factors against those of the host in float32. A part that
fails, or for which no time is left, says so in its place.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mend_jax.cost.benchmark import (
    Matmul,
    in_turns,
    make_edit_and_answer,
    random_examples,
    random_params,
)
from mend_jax.cost.small_families import SIZES, SMALL
from mend_jax.cost.workload import Sizes, Workload, make_workload
from mend_jax.intercept import capture
from mend_jax.models.published import PUBLISHED
from mend_jax.objectives import after_trunk, sequence_logits, sequence_loss
from mend_jax.peak import peak_bytes, reset_peak
from mend_jax.training.state import TrainState, init_state

MODELS: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], Sizes]] = {
    "tiny": (SMALL["t5"], SMALL["gpt2"], SIZES),
    "small": (PUBLISHED["google/t5-small-ssm-nq"], PUBLISHED["distilgpt2"], Sizes(rank=256)),
    "xl": (PUBLISHED["google/t5-xl-ssm-nq"], PUBLISHED["distilgpt2"], Sizes()),
}
"""By size: what is trained, what the benchmark times, and tokens and rank."""

LIMITS = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference, as a share of the largest value, that parity allows."""


def check(size: str, steps: int, batch: int, minutes: float) -> dict[str, Any]:
    """All parts in turn, until the minutes are over.

    Args:
      size: of `MODELS`. steps, batch: of the training run.
    """
    began = time.perf_counter()
    trained, timed, sizes = MODELS[size]
    run = Run(trained, sizes, batch)
    parts: dict[str, Callable[[], Any]] = {
        "benchmark": partial(benchmark, timed, sizes, batch),
        "training": partial(run.train, steps),
        "memory": run.memory,
    }
    parts |= {f"parity {name}": partial(parity, config) for name, config in SMALL.items()}
    found: dict[str, Any] = {}
    for name, part in parts.items():
        if time.perf_counter() - began > 60 * minutes:
            found[name] = {"skipped": f"the {minutes:g} minutes were over"}
            continue
        try:
            found[name] = part()
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "size": size,
        "parts": found,
        "seconds": round(time.perf_counter() - began, 1),
    }


def benchmark(config: Mapping[str, Any], sizes: Sizes, batch: int) -> dict[str, Any]:
    """Seconds of a training step and of one edit made and answered, and the rate of a product."""
    work, params, state = begun(config, sizes, "bfloat16")
    examples = random_examples(work, batch)
    one = jax.tree.map(lambda x: x[0], random_examples(work, 1))
    answer, product = make_edit_and_answer(work), Matmul(jnp.bfloat16)
    kept = [work.step(state, params, examples)[0]]

    def step() -> None:
        kept[0], _ = work.step(kept[0], params, examples)
        jax.block_until_ready(kept[0])

    actions: dict[str, Callable[[], Any]] = {
        "step": step,
        "edit": lambda: jax.block_until_ready(answer(kept[0].editor, params, one)),
        "product": product,
    }
    times = in_turns(actions, 3)
    rate = product.flops / times["product"].seconds
    seconds = {name: times[name].seconds for name in ("step", "edit")}
    return {"model": config["model_type"], "batch": batch, "seconds": seconds, "flops": rate}


def begun(
    config: Mapping[str, Any], sizes: Sizes, dtype: str
) -> tuple[Workload, PyTree, TrainState]:
    """A step, random weights and a fresh state."""
    work = make_workload(config, sizes, jnp.dtype(dtype))
    params = random_params(work.params, dtype)
    first = jax.tree.map(
        lambda x: x[0], after_trunk(work.trunk, params, random_examples(work, 1))
    )
    state = init_state(work.editor, work.optimiser, jax.random.key(0), params, first)
    return work, params, state


class Run:
    """A short training run in bfloat16; it keeps what it measured of its memory."""

    def __init__(self, config: Mapping[str, Any], sizes: Sizes, batch: int) -> None:
        self.config, self.sizes, self.batch = config, sizes, batch
        self.planned = self.measured = 0

    def train(self, steps: int) -> dict[str, Any]:
        """Losses and seconds of each step; each batch is drawn anew."""
        work, params, state = begun(self.config, self.sizes, "bfloat16")
        drawn = [random_examples(work, self.batch, seed) for seed in range(min(steps, 8))]
        compiled: Any = work.step.lower(state, params, drawn[0]).compile()
        memory = compiled.memory_analysis()
        self.planned = (
            memory.argument_size_in_bytes + memory.output_size_in_bytes
            - memory.alias_size_in_bytes + memory.temp_size_in_bytes
        )  # fmt: skip
        reset_peak()
        losses, seconds = [], []
        for i in range(steps):
            began = time.perf_counter()
            state, metrics = compiled(state, params, drawn[i % len(drawn)])
            losses.append(float(metrics.loss))
            seconds.append(time.perf_counter() - began)
        self.measured = peak_bytes()
        return {
            "parameters": sum(x.size for x in jax.tree.leaves(params)),
            "batch": self.batch,
            "losses": losses,
            "skipped": int(state.skipped),
            "median_seconds": float(np.median(seconds)),
            "sound": bool(np.isfinite(losses).all()) and not int(state.skipped),
        }

    def memory(self) -> dict[str, Any]:
        """Bytes that the program lays out, and the most that the device held in the run."""
        if not self.planned:
            raise RuntimeError("the training run did not get so far")
        return {"planned": self.planned, "measured": self.measured,
                "measured_per_planned": self.measured / self.planned}  # fmt: skip


def parity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The largest differences from the host's float32, of logits and of captured factors."""
    host = jax.devices("cpu")[0]
    work = make_workload(config, SIZES)
    params = jax.device_get(random_params(work.params, "float32"))
    pair = jax.device_get(jax.tree.map(lambda x: x[0], random_examples(work, 1).edit))

    def results(dtype: str, device: jax.Device) -> list[np.ndarray]:
        model: Any = work.model.clone(dtype=jnp.dtype(dtype))
        factors = capture(sequence_loss(model), work.sites)

        def both(params: PyTree) -> Any:
            return sequence_logits(model)(params, pair), factors(params, pair)[1]

        stored = jax.tree.map(lambda x: jax.device_put(x.astype(dtype), device), params)
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            return [np.asarray(x, np.float32) for x in jax.tree.leaves(jax.jit(both)(stored))]

    wanted = results("float32", host)
    found: dict[str, Any] = {}
    for dtype in LIMITS:
        got = results(dtype, jax.devices()[0])
        pairs = zip(got, wanted, strict=True)
        found[dtype] = float(max(np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in pairs))
    return found | {"sound": all(found[dtype] < limit for dtype, limit in LIMITS.items())}
