"""What arrays take of a device's memory, and how much of it is free."""

import math
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from mend_jax.models.quantize import quantize
from mend_jax.parallel import Partition, params_sharding

Dtype = Literal["float32", "bfloat16", "int8"]


class RoomError(ValueError):
    """A model that the devices have no room for; says what it takes, and what would take less."""


def stored_shapes(params: PyTree, dtype: Dtype, active: Any = jnp.bfloat16) -> PyTree:
    """What a base with these (float32) shapes holds once it is loaded.

    Args:
      active: what int8 leaves all but the kernels in.
    """
    stored = jnp.dtype(active if dtype == "int8" else dtype)

    def cast(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, stored)

    shapes = jax.tree.map(cast, params)
    return jax.eval_shape(quantize, shapes) if dtype == "int8" else shapes


def placed_shapes(shapes: PyTree, shardings: PyTree) -> PyTree:
    """The shapes with their shardings."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def device_bytes(tree: PyTree) -> int:
    """Bytes that one device holds of arrays (or their shapes) under their shardings."""
    total = 0
    for x in jax.tree.leaves(tree):
        shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
        total += math.prod(shape) * x.dtype.itemsize
    return total


def free_bytes(device: jax.Device) -> int | None:
    """Bytes of the device's memory that nobody holds; None if it does not say."""
    if device.platform == "cpu":
        try:
            text = Path("/proc/meminfo").read_text(encoding="ascii")
            return 1024 * int(text.split("MemAvailable:")[1].split()[0])
        except (OSError, IndexError):
            return None
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None


def check_room(
    name: str, params: PyTree, rules: Partition, mesh: Mesh | None, dtype: Dtype, active: Any
) -> None:
    """Refuses to load what has no room, before anything of it is allocated.

    Args:
      params: shapes of the weights. rules: how they lie on the mesh. active: as for
        `stored_shapes`.

    Raises:
      RoomError: the weights alone are more than a device has free.
    """
    devices = jax.local_devices()[:1] if mesh is None else mesh.local_devices
    free = [free_bytes(device) for device in devices]
    known = [size for size in free if size is not None]
    if not known:
        return
    shares = len(devices) if devices[0].platform == "cpu" else 1  # they share the host's memory

    def needed(dtype: Dtype) -> int:
        shapes = stored_shapes(params, dtype, active)
        if mesh is not None:
            shapes = placed_shapes(shapes, params_sharding(shapes, rules, mesh))
        return device_bytes(shapes) * shares

    if needed(dtype) <= min(known):
        return
    smaller: list[Dtype] = ["bfloat16", "int8"]
    less = [f"{d} takes {needed(d) / 1e9:,.1f}" for d in smaller if needed(d) < needed(dtype)]
    less.append("more devices (a mesh)")
    raise RoomError(
        f"{name}: the weights in {dtype} take {needed(dtype) / 1e9:,.1f} GB of a device that has "
        f"{min(known) / 1e9:,.1f} GB free. Smaller: {', '.join(less)}; "
        f"`mend-jax plan --model {quote(name)}` says what a whole run needs"
    )
