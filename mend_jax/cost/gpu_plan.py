"""What a training step will need and do on a GPU: the program that the GPU's own compiler makes.

The real step is compiled from abstract shapes for a card that need not be there (`cost/target.py`).
Memory is what the program lays out; FLOPs, bytes, kernels and collectives are counted in its text
(`cost/kernels.py`).

    seconds_roofline = sum over kernels of  times * max(bytes / bandwidth, FLOPs / rate)

is what the card's memory and its products allow. Launching kernels takes more, and so does what the
devices send each other: collectives are not in it.

    efficiency(link) = seconds_roofline / (seconds_roofline + bytes sent / bandwidth of the link)

is the share of a step that a device computes, if nothing is sent while it does.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache

from mend_jax.cost.collectives import sent_over
from mend_jax.cost.kernels import Kernel, Work, work_of
from mend_jax.cost.program_text import parse_program
from mend_jax.cost.target import Target, target_mesh
from mend_jax.cost.workload import (
    Sizes,
    Streaming,
    make_workload,
    placed_arguments,
    streaming_of,
)
from mend_jax.models.memory import Dtype, device_bytes
from mend_jax.models.stages import abstract_params
from mend_jax.models.tail import Parts
from mend_jax.training.state import Placement

NETWORK = "400 Gb/s"
"""The other link that is reckoned with, besides the one inside of a machine: a network."""
NETWORK_BANDWIDTH = 400e9 / 8
"""Bytes a second and device."""

LIBRARY = {"xla_gpu_enable_triton_gemm": False}
"""Products by the library alone. Some sizes the compiler cannot tile itself without a card to try
them on; then all are the library's."""


class Setting(NamedTuple):
    """A training step. config: a Hugging Face config.json. mesh: (data, model). batch: edits over
    all devices. dtype: of the base's weights; activations are bfloat16 unless it is float32. parts:
    as for `load`."""

    config: Mapping[str, Any]
    mesh: tuple[int, int] = (1, 1)
    batch: int = 10
    dtype: Dtype = "bfloat16"
    sizes: Sizes = Sizes()
    shard_editor: bool = False
    parts: Parts = "all"


class GpuBytes(NamedTuple):
    """Bytes per device. weights, editor, optimizer: from shapes; temporaries, peak: the program's.
    inputs: what else it is given, and how arrays are padded. peak is the sum of the others."""

    weights: int
    editor: int
    optimizer: int
    inputs: int
    temporaries: int
    peak: int


class GpuPlan(NamedTuple):
    """What a training step needs and does.

    flops_step: of matrix products, over all devices. All that follows is per device: bytes_moved
    and kernels of a step; products, by who multiplies ("fusion", "library", "reduction"), and
    collectives by kind, {"kernels" or "count", "bytes", ...}; sent: bytes along each axis of the
    mesh, the best known way; efficiency: by link, empty on one device. endless: loops that do not
    say how often they run. in_place: the state's arrays whose memory the new state takes over.
    streaming: what comes before the first step, if the trunk is not held.
    """

    target: str
    params: int
    editor_params: int
    bytes: GpuBytes
    flops_step: float
    bytes_moved: int
    kernels: int
    seconds_roofline: float
    products: dict[str, dict[str, float]]
    collectives: dict[str, dict[str, float]]
    sent: dict[str, float]
    efficiency: dict[str, float]
    endless: int
    in_place: int
    streaming: Streaming | None = None


def make_gpu_plan(target: Target, setting: Setting) -> GpuPlan:
    """Compiles and counts; takes one to four minutes for the largest models, and some GB of memory.

    Raises:
      TargetError: no compiler for GPUs is installed, or one of another JAX.
      ValueError: an architecture that is not implemented; a batch that "data" does not divide; no
        tail of this model could be trained alone.
    """
    mesh = target_mesh(target, *setting.mesh)
    place = Placement(mesh, setting.shard_editor)
    active = jnp.float32 if setting.dtype == "float32" else jnp.bfloat16
    work = make_workload(setting.config, setting.sizes, active, place, setting.parts)
    placed = placed_arguments(work, setting.batch, setting.dtype, place)
    compiled = compile_for_gpu(work.step.lower(*placed))
    program = parse_program(compiled.as_text())
    done = work_of(program)
    given = (
        device_bytes(placed.params),
        device_bytes(placed.state.editor),
        device_bytes(placed.state.optimiser),
    )
    memory = compiled.memory_analysis()
    temporaries = memory.temp_size_in_bytes
    inputs = memory.argument_size_in_bytes - sum(given)
    inputs += memory.output_size_in_bytes - memory.alias_size_in_bytes
    sent = sent_over(done.collectives, mesh.shape)
    seconds = roofline(done, target)
    return GpuPlan(
        target=target.name,
        params=sum(x.size for x in jax.tree.leaves(abstract_params(work.model))),
        editor_params=sum(x.size for x in jax.tree.leaves(placed.state.editor.phi)),
        bytes=GpuBytes(*given, inputs, temporaries, sum(given) + inputs + temporaries),
        flops_step=done.flops * mesh.size,
        bytes_moved=done.bytes,
        kernels=done.launches,
        seconds_roofline=seconds,
        products=_products(done),
        collectives=_collectives(done),
        sent=sent,
        efficiency=efficiency(seconds, sum(sent.values()), target) if mesh.size > 1 else {},
        endless=done.endless,
        in_place=len(program.aliased()),
        streaming=streaming_of(work, setting.dtype),
    )


def compile_for_gpu(lowered: Any) -> Any:
    """The program of a lowered function whose devices are a target's; it cannot be run."""
    with _no_cache():
        try:
            return lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "tile sizes" not in str(error):
                raise
            return lowered.compile(LIBRARY)


@contextmanager
def _no_cache() -> Iterator[None]:
    """A program that was compiled for no device cannot be read back from JAX's cache."""
    before: bool = getattr(jax.config, "jax_enable_compilation_cache")  # noqa: B009
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def roofline(done: Work, target: Target) -> float:
    """Seconds a step, by the formula above."""
    sending = {one.name for one in done.collectives}

    def seconds(kernel: Kernel) -> float:
        rate = target.rate32 if kernel.dtype == "f32" else target.rate16
        return max(kernel.bytes / target.bandwidth, kernel.flops / rate)

    return sum(k.times * seconds(k) for k in done.kernels if k.name not in sending)


def efficiency(seconds: float, sent: float, target: Target) -> dict[str, float]:
    """By link, by the formula above."""
    links = {target.link: target.link_bandwidth, NETWORK: NETWORK_BANDWIDTH}
    return {name: seconds / (seconds + sent / bandwidth) for name, bandwidth in links.items()}


def _products(done: Work) -> dict[str, dict[str, float]]:
    found: dict[str, Counter[str]] = {}
    for kernel in done.products:
        one = {"kernels": 1, "bytes": kernel.bytes, "flops": kernel.flops}
        found.setdefault(kernel.by, Counter()).update({k: kernel.times * n for k, n in one.items()})
    return {name: dict(counts) for name, counts in sorted(found.items())}


def _collectives(done: Work) -> dict[str, dict[str, float]]:
    """bytes: of a device's operands, before it is said how they travel."""
    found: dict[str, Counter[str]] = {}
    for one in done.collectives:
        counts = {"count": one.times, "bytes": one.times * one.bytes}
        found.setdefault(one.kind, Counter()).update(counts)
    return {name: dict(counts) for name, counts in sorted(found.items())}
