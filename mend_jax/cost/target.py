"""The GPUs that a program can be compiled for without having one, and their speeds.

XLA's compiler for NVIDIA cards needs neither a card nor a driver: its plugin compiles for a card
that a text describes (`targets/NAME.txtpb`, a `GpuTargetConfigProto`), and says what the program
would hold and do. `pip install "mend_jax[gpu-compile]"` brings it. Without a card nothing is tried
out, so the compiler makes its own choice for each product where on a card the fastest one wins.
"""

import importlib.metadata
import os
import re
from importlib import resources
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from mend_jax.option_types import accepted_by

PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")


class TargetError(RuntimeError):
    """There is no compiler for GPUs here, or it is another JAX's; says what to do."""


class Target(NamedTuple):
    """A card, from its data sheet. Rates are peaks of dense products.

    text: for the compiler. memory: bytes. bandwidth: of the memory, bytes a second. rate16: FLOPs a
    second in bfloat16 or float16. rate32: in float32, as the compiler multiplies it (TF32 where the
    card has it). link: what joins the cards of one machine. link_bandwidth: bytes a second that a
    card sends over it. bfloat16: whether the card multiplies it.
    """

    name: str
    text: str
    memory: int
    bandwidth: float
    rate16: float
    rate32: float
    link: str
    link_bandwidth: float
    bfloat16: bool = True


_SPEEDS: dict[str, tuple[float, float, str, float]] = {
    "h100": (989e12, 495e12, "NVLink", 450e9),
    "h200": (989e12, 495e12, "NVLink", 450e9),
    "a100": (312e12, 156e12, "NVLink", 300e9),
    "l4": (121e12, 60e12, "PCIe", 32e9),
    "t4": (65e12, 8.1e12, "PCIe", 16e9),
    "b200": (2250e12, 1100e12, "NVLink", 900e9),
}
"""rate16, rate32, link, link_bandwidth: what the texts have no place for."""


def target_of(name: str) -> Target:
    """A target by its name.

    Raises:
      ValueError: it is not known; names those that are.
    """
    if name not in _SPEEDS:
        raise ValueError(f"the target {name!r} is not known; known are {', '.join(_SPEEDS)}")
    text = resources.files("mend_jax.cost").joinpath(f"targets/{name}.txtpb").read_text("utf-8")
    def said(pattern: str) -> int:
        return int(re.findall(rf"{pattern}: (\d+)", text)[0])

    return Target(
        name, text, said("device_memory_size"), float(said("memory_bandwidth")), *_SPEEDS[name],
        bfloat16=said(r"cuda_compute_capability \{ major") >= 8,
    )  # fmt: skip


TargetName = Annotated[str, accepted_by(target_of)]
"""An option: one of these."""


def check_compiler() -> None:
    """Whether a plugin that compiles for GPUs is there, and is this JAX's.

    Raises:
      TargetError: not so.
    """
    versions = {}
    for name in PLUGINS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    mine = jax.__version__
    if mine in versions.values():
        return
    how = f'pip install "jax[cuda12-local]=={mine}"'
    if versions:
        there = ", ".join(f"{name} {version}" for name, version in versions.items())
        raise TargetError(f"{there} is for another JAX than {mine}, which is installed: {how}")
    raise TargetError(
        "--target needs XLA's compiler for GPUs (no card, no driver, no CUDA): "
        f'pip install "mend_jax[gpu-compile]", or {how}'
    )


def target_mesh(target: Target, data: int = 1, model: int = 1) -> Mesh:
    """A mesh ("data", "model") of so many cards, for which can be compiled, and nothing be run.

    Raises:
      TargetError: no plugin of this JAX's version is there, or it does not take the target.
    """
    check_compiler()
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # there is no CUDA to check
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # that there is no card is known
    from jax.experimental import topologies

    count = data * model
    try:
        topology: Any = topologies.get_topology_desc(
            platform="cuda", topology_name=target.name, topology=f"1x1x{count}",
            target_config=target.text,
        )  # fmt: skip
    except (NotImplementedError, jax.errors.JaxRuntimeError) as error:
        raise TargetError(f"the compiler does not take the target {target.name}: {error}") from None
    devices = np.array(topology.devices).reshape(data, model)
    return Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
