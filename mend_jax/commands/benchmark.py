"""Time and memory of training and editing, beside PyTorch and beside what the machine can do.

    mend-jax benchmark --random-weights --json results/benchmark_cpu.json
    mend-jax benchmark --random-weights --model google/t5-xxl-ssm-nq --dtype bfloat16

Setting of the original's measurement: distilGPT-2, sequences of 32 tokens of which 10 are labelled,
one edit, one outer and one locality pair, rank 1920. The unit is PyTorch's forward and backward of
the same base on the same edit (without PyTorch it is left out). Measured for the original on
2 cores: a training edit 4.5 units, an edit applied 1.7. `evaluate` scores edits `batch` at a time
over the tail, after one pass of the trunk; `evaluate_alone` one after another over the whole base.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mend_jax.commands.command import Command, Preset
from mend_jax.cost.benchmark import (
    Matmul,
    Timing,
    in_turns,
    random_examples,
)
from mend_jax.cost.timed import Runs
from mend_jax.cost.torch_unit import make_unit
from mend_jax.cost.workload import Sizes
from mend_jax.files import write_text
from mend_jax.models.memory import Dtype
from mend_jax.models.published import PublishedModel, config_of
from mend_jax.models.registry import load
from mend_jax.option_checks import check_options
from mend_jax.option_types import Batch, OutFile, Rank, Some, Times, Tokens
from mend_jax.peak import peak_bytes, reset_peak


@dataclass(frozen=True)
class BenchmarkConfig:
    """Options of the benchmark."""

    model: PublishedModel = "distilgpt2"
    """A built-in model (with --random-weights), or a folder."""
    random_weights: bool = False
    """Weights from shapes alone: no files are needed."""
    dtype: Dtype = "float32"
    """Of the base's weights; the editor is float32."""
    batch: Batch = 10
    """Edits of a training step; steps of one edit are timed too."""
    length: Tokens = 32
    """Tokens of a sequence."""
    answers: Tokens = 10
    """Labelled tokens of a sequence."""
    rank: Rank = 1920
    """Rank of the editor network."""
    evaluated: Some = 100
    """Edits that are evaluated in a round."""
    rounds: Some = 7
    """Each thing is timed so often, in turns; the fastest counts."""
    held: Times = 0
    """Of a causal model: also time a pass over 8 texts of 64 tokens, and decoding of 16 texts, with
    and without so many edits that have scopes (0: do not)."""
    only_step: bool = False
    """Only the training step of `batch` edits, without PyTorch."""
    json: OutFile | None = None
    """Write the results to this file."""


HELD = ("pass", "pass_held", "decode", "decode_held")


def run(config: BenchmarkConfig) -> dict[str, Any]:
    """Times everything; returns what is written to the file.

    Raises:
      OptionError: a model that is not known, or another value that is not allowed.
    """
    check_options(config)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs room too
    sizes = Sizes(config.length, config.answers, config.rank)
    params = None if config.random_weights else load(config.model, dtype=config.dtype).params
    runs = Runs(config.model, sizes, config.dtype, params, config.evaluated)
    wanted: dict[str, tuple[Callable[[], None], float]] = {}
    if not config.only_step:
        wanted["step_1"] = runs.step(1)  # first: an editor has to have seen rows before it edits
        wanted["edit"] = runs.edit()
        wanted["evaluate"] = runs.evaluate(config.batch)
        wanted["evaluate_alone"] = runs.evaluate(1, alone=True)
    wanted[f"step_{config.batch}"] = runs.step(config.batch)
    peaks = {name: _peak(action) for name, (action, _) in wanted.items()}
    matmul = Matmul(jnp.float32 if config.dtype == "float32" else jnp.bfloat16)
    actions: dict[str, Callable[[], Any]] = {"matmul": matmul}
    missing = "not asked for"
    if not config.only_step:
        try:
            actions["unit"] = make_unit(
                config_of(config.model), random_examples(runs.work, 1), config.dtype,
                jax.default_backend() != "cpu",
            )  # fmt: skip
        except ImportError as error:
            missing = f"left out: {error}"
    actions |= {name: action for name, (action, _) in wanted.items()}
    if config.held:
        actions |= runs.held(config.held)
    times = in_turns(actions, config.rounds)
    rate = matmul.flops / times["matmul"].seconds
    unit = times["unit"].seconds if "unit" in times else None
    edits = {"step_1": 1, f"step_{config.batch}": config.batch, "edit": 1}
    edits |= dict.fromkeys(("evaluate", "evaluate_alone"), config.evaluated)
    device = jax.devices()[0]
    return {
        "model": config.model,
        "platform": "cpu" if device.platform == "cpu" else "gpu",
        "device": device.device_kind,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "jax": jax.__version__,
        "dtype": config.dtype,
        "setting": {
            "length": config.length, "answers": config.answers, "rank": config.rank,
            "batch": config.batch, "evaluated": config.evaluated, "sites": len(runs.work.sites),
            "rounds": config.rounds, "held": config.held,
        },
        "matmul_flops_per_second": rate,
        "unit": _seconds(times["unit"]) if "unit" in times else missing,
        "results": {
            name: _result(times[name], edits[name], flops, rate, unit) | {"peak_bytes": peaks[name]}
            for name, (_, flops) in wanted.items()
        },
        "peak_bytes": max(peaks.values()),
        "held": {
            name: {"seconds": times[name].seconds, "median": times[name].median}
            for name in HELD if name in times
        },
    }  # fmt: skip


def _peak(action: Callable[[], None]) -> int:
    """Most memory held while it runs, once compiled."""
    action()
    reset_peak()
    action()
    return peak_bytes()


def _seconds(timing: Timing) -> dict[str, float]:
    return {"seconds": timing.seconds, "median": timing.median}


def _result(
    timing: Timing, edits: int, flops: float, rate: float, unit: float | None
) -> dict[str, Any]:
    """Per edit; `share_of_matmul_rate`: FLOPs a second against those of the large product."""
    seconds = timing.seconds / edits
    return {
        "edits": edits,
        "seconds_per_edit": seconds,
        "median_seconds_per_edit": timing.median / edits,
        "units": None if unit is None else seconds / unit,
        "flops_per_edit": flops / edits,
        "share_of_matmul_rate": flops / timing.seconds / rate,
    }


def table(found: Mapping[str, Any]) -> str:
    """The results as lines of text."""
    s = found["setting"]
    lines = [
        f"{found['model']}, {found['dtype']}, {found['device']} ({found['cores']} cores, load "
        f"{found['load']}), {s['sites']} sites, rank {s['rank']}, {s['length']} tokens of which "
        f"{s['answers']} labelled",
        f"  large matmul: {found['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s",
    ]
    unit = found["unit"]
    said = unit if isinstance(unit, str) else f"{unit['seconds']:.4f} s"
    lines.append(f"  the unit, PyTorch's forward and backward of the base on one edit: {said}")
    lines.append(
        f"  {'per edit':<18} {'seconds':>9} {'(median)':>10} {'units':>7} {'GFLOP':>8} "
        f"{'of rate':>8} {'peak GB':>8}"
    )
    for name, r in found["results"].items():
        units = "" if r["units"] is None else f"{r['units']:.2f}"
        lines.append(
            f"  {name:<18} {r['seconds_per_edit']:9.4f} {r['median_seconds_per_edit']:10.4f} "
            f"{units:>7} {r['flops_per_edit'] / 1e9:8.1f} {r['share_of_matmul_rate']:8.0%} "
            f"{r['peak_bytes'] / 1e9:8.2f}"
        )
    if held := found["held"]:
        for name in ("pass", "decode"):
            alone, together = (held[key]["median"] for key in (name, f"{name}_held"))
            lines.append(
                f"  {name:<18} {alone:9.4f} s, with {s['held']} edits held {together:9.4f} s "
                f"({together / alone:.2f}x)"
            )
    return "\n".join(lines)


def benchmark(config: BenchmarkConfig) -> None:
    """Times, prints, writes."""
    found = run(config)
    print(table(found))
    if config.json:
        write_text(config.json, json.dumps(found, indent=1) + "\n")

PRESETS = {
    "smollm2": Preset(
        {
            "model": "smollm2-135m", "random_weights": True, "length": 48, "answers": 3,
            "rank": 256, "batch": 20, "rounds": 1,
        },
        "an edit evaluated beside 19 others 0.22 s, one after another over the whole base 0.32 s, "
        "on two CPU cores (results/evaluate_smollm2_cpu.json)",
    ),
}  # fmt: skip

COMMAND = Command(BenchmarkConfig, benchmark, __doc__, PRESETS)
