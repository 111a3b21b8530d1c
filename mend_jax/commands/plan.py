"""What a training run will need, before it is run: memory per device, and FLOPs of a step.

    mend-jax plan --model google/t5-xxl-ssm-nq --mesh 1x1 --batch 10
    mend-jax plan --model EleutherAI/gpt-j-6B --mesh 2x4 --dtype int8 --json plan.json
    mend-jax plan --model google/t5-xxl-ssm-nq --target h100
    mend-jax plan --model EleutherAI/gpt-j-6B --stream

Weights, editor, optimiser and gradients are counted exactly; activations are an ESTIMATE from the
real step, compiled for as many virtual devices as the mesh has, on CPU and without allocating it.
With --target the GPU's own compiler makes the real program, without a GPU: memory, bytes moved,
kernels, what the devices send each other, and the time that the card's memory and products allow.
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
from mend_jax.cost.gpu_plan import GpuPlan, Setting, make_gpu_plan
from mend_jax.cost.plan import CARDS, USABLE, Plan, make_plan
from mend_jax.cost.target import Target, TargetName, target_of
from mend_jax.cost.workload import Sizes, Streaming
from mend_jax.files import write_text
from mend_jax.models.memory import Dtype
from mend_jax.models.published import PublishedModel, config_of
from mend_jax.models.tail import Parts
from mend_jax.option_checks import check_options
from mend_jax.option_types import Batch, Mesh, OutFile, Rank, Tokens
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
    stream: bool = False
    """Hold only the edited layers and those above, on one device; the others are read before the
    first step."""
    target: TargetName | None = None
    """The card that the GPU's own compiler makes the step for: h100, h200, a100, l4, t4 or b200.
    Needs the extra gpu-compile; without a target, activations are an estimate."""
    measure: bool = False
    """On a GPU: run one step with random weights, and print its peak beside the estimate."""
    json: OutFile | None = None
    """Write the plan to this file."""


def as_json(plan: Plan | GpuPlan, config: PlanConfig, seconds: float) -> dict[str, Any]:
    """The content of the file: bytes per device, FLOPs of a step of the whole batch."""
    asked = {name: getattr(config, name) for name in ("model", "mesh", "batch", "dtype")}
    values = plan._asdict() | {"bytes": plan.bytes._asdict()}
    if plan.streaming is not None:
        values["streaming"] = plan.streaming._asdict()
    return {**asked, **values, "seconds": round(seconds, 1)}


def head(plan: Plan | GpuPlan, config: PlanConfig) -> list[str]:
    """What is planned."""
    return [
        f"{config.model}: {plan.params / 1e6:,.1f} M parameters, {config.dtype}, "
        f"editor {plan.editor_params / 1e6:,.1f} M, mesh {config.mesh}, batch {config.batch}",
        *streamed(plan.streaming),
        f"  {'per device':<14} {'GB':>8}",
    ]


def streamed(found: Streaming | None) -> list[str]:
    """What comes before the first step."""
    if found is None:
        return []
    return [
        f"  streamed first, once: {found.bytes_read / 1e9:.3f} GB of weights; each token of the "
        f"texts takes {found.flops_token / 1e9:.3g} GFLOP, and {found.states_token:,} bytes of disk"
    ]


def table(plan: Plan, config: PlanConfig) -> str:
    """The plan as lines of text."""
    lines = head(plan, config)
    for name, size in plan.bytes._asdict().items():
        how = "estimate" if name in ("activations", "peak") else "exact"
        lines.append(f"  {name:<14} {size / 1e9:8.3f}   {how}")
    fits = ", ".join(f"{card}" for card in plan.fits) or "none"
    lines += [
        f"  fits cards of (GB): {fits}   (of {', '.join(map(str, CARDS))}, by the estimate)",
        f"  FLOPs of a step: {plan.flops_step:.3g} = trunk {plan.flops_trunk:.3g} "
        f"+ tail and editor {plan.flops_tail:.3g}",
        "  The estimate is the CPU compiler's; --target h100 asks the GPU's own.",
    ]
    return "\n".join(lines)


def gpu_table(plan: GpuPlan, target: Target, config: PlanConfig) -> str:
    """The same of a program for a card."""
    lines = head(plan, config)
    lines += [f"  {name:<14} {size / 1e9:8.3f}" for name, size in plan.bytes._asdict().items()]
    room = USABLE * target.memory
    fits = "fits" if plan.bytes.peak <= room else "does NOT fit"
    multiplied = sum(part["bytes"] for part in plan.products.values())
    products = sum(part["kernels"] for part in plan.products.values())
    lines += [
        f"  {fits} a card of {target.memory / 1e9:.0f} GB ({target.name}), which leaves a program "
        f"{room / 1e9:.1f} GB",
        f"  a step: {plan.flops_step / 1e12:.3f} TFLOP over all devices; each moves "
        f"{plan.bytes_moved / 1e9:.1f} GB, {multiplied / 1e9:.1f} of them for matrix products",
        f"  kernels launched: {plan.kernels:,}, {products:,.0f} of them matrix products",
        f"  roofline: {1e3 * plan.seconds_roofline:.1f} ms, without launches and collectives",
    ]
    for axis, sent in plan.sent.items():
        if sent:
            lines.append(f"  sent along {axis}: {sent / 1e9:.3f} GB a step and device")
    for link, share in plan.efficiency.items():
        lines.append(f"  computing {share:.0%} of a step, were all of it sent over {link}")
    if plan.endless:
        lines.append(f"  {plan.endless} loops do not say how often they run: counted as once")
    if not target.bfloat16 and config.dtype != "float32":
        lines.append(f"  a {target.name} has no bfloat16: the compiler computes in float32")
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
    if config.stream and (config.measure or parse_mesh(config.mesh) != (1, 1)):
        raise ValueError("--stream is of one device: leave --mesh out, and --measure")
    began = time.perf_counter()
    data, model = parse_mesh(config.mesh)
    sizes = Sizes(config.length, config.answers, config.rank)
    parts: Parts = "tail" if config.stream else "all"
    jax.config.update("jax_platforms", "cpu")  # the GPU's compiler would try its kernels out
    made: Plan | GpuPlan
    if config.target:
        target, known = target_of(config.target), config_of(config.model)
        setting = Setting(
            known, (data, model), config.batch, config.dtype, sizes, config.shard_editor, parts
        )
        made = make_gpu_plan(target, setting)
        print(gpu_table(made, target, config))
    else:
        if data * model > 1:
            jax.config.update("jax_num_cpu_devices", data * model)
        made = make_plan(
            config_of(config.model), make_mesh(data, model), config.batch, config.dtype,
            sizes, config.shard_editor, parts,
        )  # fmt: skip
        print(table(made, config))
    values = as_json(made, config, time.perf_counter() - began)
    if config.measure:
        values["bytes"]["measured_peak"] = measured_peak(config)
        print(f"  measured peak  {values['bytes']['measured_peak'] / 1e9:8.2f}   (random weights)")
    if config.json:
        write_text(config.json, json.dumps(values, indent=1) + "\n")


COMMAND = Command(PlanConfig, plan, __doc__)
