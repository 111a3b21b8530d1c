"""What a training run will need, before it is run: memory per device, and FLOPs of a step.

    mend-jax plan --model google/t5-xxl-ssm-nq --mesh 1x1 --batch 10
    mend-jax plan --model EleutherAI/gpt-j-6B --mesh 2x4 --dtype int8 --json plan.json

Weights, editor, optimiser and gradients are counted exactly; activations are an ESTIMATE from the
real step, compiled for as many virtual devices as the mesh has, on CPU and without allocating it.
The paper's models are built in (no network): their names are listed if none is known by yours.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from mend_jax.commands.command import Command
from mend_jax.cost.plan import CARDS, Plan, make_plan
from mend_jax.cost.workload import Sizes
from mend_jax.files import write_text
from mend_jax.models.memory import Dtype
from mend_jax.models.published import PublishedModel, config_of
from mend_jax.option_types import Batch, Mesh, OutFile, Rank, Tokens, check_options
from mend_jax.parallel import make_mesh, parse_mesh


@dataclass(frozen=True)
class PlanConfig:
    """Options of a plan."""

    model: PublishedModel
    """A built-in model (google/t5-xxl-ssm-nq, gpt2-xl, ...), or a folder with a config.json."""
    mesh: Mesh = "1x1"
    """Devices: DATAxMODEL."""
    batch: Batch = 10
    """Edits a step, over all devices."""
    dtype: Dtype = "bfloat16"
    """Of the base's weights; the editor is float32."""
    length: Tokens = 32
    """Tokens of a sequence."""
    answers: Tokens = 10
    """Labelled tokens of a sequence."""
    rank: Rank = 1920
    """Rank of the editor network."""
    shard_editor: bool = False
    """Split the editor's matrices over MODEL too."""
    measure: bool = False
    """On a GPU: run one step with random weights, and print its peak beside the estimate."""
    json: OutFile | None = None
    """Write the plan to this file."""


def as_json(plan: Plan, seconds: float) -> dict[str, Any]:
    """The content of the file: bytes per device, FLOPs of a step of the whole batch."""
    values = plan._asdict()
    return {**values, "bytes": plan.bytes._asdict(), "seconds": round(seconds, 1)}


def table(plan: Plan, config: PlanConfig) -> str:
    """The plan as lines of text."""
    gigabyte = 1e9
    lines = [
        f"{config.model}: {plan.params / 1e6:,.1f} M parameters, {config.dtype}, "
        f"editor {plan.editor_params / 1e6:,.1f} M, mesh {config.mesh}, batch {config.batch}",
        f"  {'per device':<14} {'GB':>8}",
    ]
    for name, size in plan.bytes._asdict().items():
        how = "estimate" if name in ("activations", "peak") else "exact"
        lines.append(f"  {name:<14} {size / gigabyte:8.3f}   {how}")
    fits = ", ".join(f"{card}" for card in plan.fits) or "none"
    lines += [
        f"  fits cards of (GB): {fits}   (of {', '.join(map(str, CARDS))}, by the estimate)",
        f"  FLOPs of a step: {plan.flops_step:.3g} = trunk {plan.flops_trunk:.3g} "
        f"+ tail and editor {plan.flops_tail:.3g}",
    ]
    return "\n".join(lines)


def measured_peak(config: PlanConfig) -> int:
    """Bytes that one real step takes on this machine's GPU, in a process of its own.

    Raises:
      ValueError: there is no GPU, or the step did not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "benchmark.json"
        command = [
            sys.executable, "-m", "experiments.benchmark", "--random-weights", "--only-step",
            "--model", config.model, "--dtype", config.dtype, "--batch", str(config.batch),
            "--length", str(config.length), "--answers", str(config.answers),
            "--rank", str(config.rank), "--json", str(out),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"the measured step failed:\n{done.stderr[-2000:]}")
        result = json.loads(out.read_text(encoding="utf-8"))
    if result["platform"] != "gpu":
        raise ValueError(f"--measure needs a GPU; JAX finds only {result['platform']} here")
    return int(result["peak_bytes"])


def plan(config: PlanConfig) -> None:
    """Counts, compiles, prints."""
    check_options(config)
    if config.measure and parse_mesh(config.mesh) != (1, 1):
        raise ValueError("--measure runs on one device: give --mesh 1x1")
    began = time.perf_counter()
    data, model = parse_mesh(config.mesh)
    jax.config.update("jax_platforms", "cpu")  # the GPU's compiler would try its kernels out
    if data * model > 1:
        jax.config.update("jax_num_cpu_devices", data * model)
    made = make_plan(
        config_of(config.model), make_mesh(data, model), config.batch, config.dtype,
        Sizes(config.length, config.answers, config.rank), config.shard_editor,
    )  # fmt: skip
    values = as_json(made, time.perf_counter() - began)
    print(table(made, config))
    if config.measure:
        values["bytes"]["measured_peak"] = measured_peak(config)
        print(f"  measured peak  {values['bytes']['measured_peak'] / 1e9:8.2f}   (random weights)")
    if config.json:
        write_text(config.json, json.dumps(values, indent=1) + "\n")


COMMAND = Command(PlanConfig, plan, __doc__)
