"""One model over many devices, and over many hosts: a mesh of two axes, and what lies where.

    mesh ("data", "model"):  edits and examples are split over "data",
                             the base's weights over "model" by their family's table,
                             the editor is on every device, or its matrices over "model" too.

Every process of a run executes the same program on the same host arrays; each puts on its devices
only the pieces that lie there. `jax.jit` does the rest: it moves what a product needs.
"""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, PyTree

Partition: TypeAlias = tuple[tuple[str, tuple[str | None, ...]], ...]
"""Rules (regular expression of a parameter's path, mesh axis of each of its dimensions). The first
that matches counts; what matches none is replicated."""

HEARTBEAT = 10
"""Seconds after which a process that says nothing is lost. A busy process still says something."""


class ParallelError(ValueError):
    """Devices, processes and sizes that do not fit together; says what would."""


def make_mesh(data: int = 1, model: int = 1) -> Mesh:
    """A mesh with the axes ("data", "model") over all devices, of all processes, or the first few.

    The axes are `AxisType.Auto`, which Linen needs (`jax.make_mesh` would make them explicit).

    Raises:
      ParallelError: there are not so many devices; or, with several processes, there are more, so
        that a process might have no part in the mesh.
    """
    if data < 1 or model < 1:
        raise ParallelError(f"mesh {data}x{model}: both sizes must be at least 1")
    there, processes = len(jax.devices()), jax.process_count()
    wanted = data * model
    if wanted > there or (processes > 1 and wanted < there):
        devices = "1 device" if wanted == 1 else f"{wanted} devices"
        together = f", of {processes} processes, which have to use all of them" * (processes > 1)
        have = "is 1" if there == 1 else f"are {there}"
        verb = "needs" if wanted > there else "has"
        raise ParallelError(f"mesh {data}x{model} {verb} {devices}, there {have}{together}")
    axes = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, model), ("data", "model"), axes, devices=jax.devices()[:wanted])


def parse_mesh(text: str) -> tuple[int, int]:
    """(data, model) of "DATAxMODEL".

    Raises:
      ParallelError: it is not of this form.
    """
    sizes = re.fullmatch(r"0*([1-9][0-9]{0,9})x0*([1-9][0-9]{0,9})", text.lower())
    if sizes is None:
        raise ParallelError(f"a mesh is DATAxMODEL, like 1x1 or 2x4, not {text!r}")
    return int(sizes[1]), int(sizes[2])


def mesh_of(text: str) -> Mesh | None:
    """The mesh that an option "DATAxMODEL" asks for; None if one device is enough."""
    data, model = parse_mesh(text)
    return make_mesh(data, model) if data * model > 1 else None


def partition_spec(
    path: str, shape: tuple[int, ...], rules: Partition, mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """How one parameter lies on the mesh: by the first rule that matches the whole path.

    A dimension that does not divide evenly is not split, and what no rule matches is on every
    device. That is always right; only memory and time depend on it.

    Raises:
      ParallelError: the rule is for another number of dimensions.
    """
    for pattern, axes in rules:
        if re.fullmatch(pattern, path):
            if len(axes) != len(shape):
                raise ParallelError(f"{path} has shape {shape}, but its rule is {pattern}: {axes}")
            sizes = [1 if axis is None else mesh.shape[axis] for axis in axes]
            fits = [n % size == 0 for n, size in zip(shape, sizes, strict=True)]
            return _spec([a if ok else None for a, ok in zip(axes, fits, strict=True)])
    return PartitionSpec()


def _spec(axes: list[str | None]) -> PartitionSpec:
    """As `jit` writes it, without None at the end; else its own output is a new kind of input."""
    while axes and axes[-1] is None:
        axes = axes[:-1]
    return PartitionSpec(*axes)


def params_sharding(params: PyTree, rules: Partition, mesh: Mesh) -> PyTree:
    """`NamedSharding` of each of a base's parameters (arrays, or their shapes)."""

    def one(path: tuple[Any, ...], x: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition_spec(name, x.shape, rules, mesh))

    return jax.tree_util.tree_map_with_path(one, params)


def shard_params(params: PyTree, rules: Partition, mesh: Mesh) -> PyTree:
    """A base's parameters, moved to where `params_sharding` says."""
    return jax.tree.map(put, params, params_sharding(params, rules, mesh))


def placer(
    rules: Partition, mesh: Mesh | None
) -> Callable[[tuple[str, ...], np.ndarray | Array], Array]:
    """`place(path, array)` for `load_params`: each tensor straight to its devices."""

    def place(path: tuple[str, ...], array: np.ndarray | Array) -> Array:
        if mesh is None:
            return jax.device_put(array)
        spec = partition_spec("/".join(path), array.shape, rules, mesh)
        return put(array, NamedSharding(mesh, spec))

    return place


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device, whole."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """The leading axis (edits) split over "data"."""
    return NamedSharding(mesh, PartitionSpec("data"))


def matrix_sharding(tree: PyTree, mesh: Mesh) -> PyTree:
    """Every array of two or more dimensions split over "model", by the largest that divides.

    It depends on the shape alone, so that an optimiser's moments lie where their parameters lie.
    """

    def one(x: Any) -> NamedSharding:
        divides = [i for i, n in enumerate(x.shape) if n % mesh.shape["model"] == 0]
        spec: list[str | None] = [None] * len(x.shape)
        if divides and len(x.shape) > 1:
            spec[max(divides, key=lambda i: x.shape[i])] = "model"
        return NamedSharding(mesh, _spec(spec))

    return jax.tree.map(one, tree)


def shard_examples(examples: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays with the leading axis edits, split over "data".

    With several processes, all hold the same arrays, and each takes the part of its devices.

    Raises:
      ParallelError: the number of edits does not divide.
    """
    _check_divides(examples, mesh)
    return jax.tree.map(lambda x: put(x, over_data(mesh)), examples)


def split_examples(examples: PyTree, mesh: Mesh | None) -> PyTree:
    """`shard_examples` inside a jitted function; without a mesh, nothing."""
    if mesh is None:
        return examples
    _check_divides(examples, mesh)
    return jax.lax.with_sharding_constraint(examples, over_data(mesh))


def _check_divides(examples: PyTree, mesh: Mesh) -> None:
    size = mesh.shape["data"]
    for x in jax.tree.leaves(examples):
        if x.shape[0] % size:
            raise ParallelError(
                f"{x.shape[0]} edits do not divide over the {size} parts of the mesh axis data: "
                f"take a multiple of {size}"
            )


def put(x: Any, sharding: Sharding) -> Array:
    """The array under a sharding; a host array goes piece by piece, only to this host's devices."""
    if isinstance(x, jax.Array) and (x.is_fully_addressable or len(x.sharding.device_set) > 1):
        if sharding.is_fully_addressable or len(x.sharding.device_set) > 1:
            return jax.device_put(x, sharding)
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def fetch(tree: PyTree) -> PyTree:
    """The whole arrays as numpy, also if other processes hold parts; then all must call it."""

    def one(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            assert isinstance(x.sharding, NamedSharding) and isinstance(x.sharding.mesh, Mesh)
            x = jax.jit(lambda x: x, out_shardings=replicated(x.sharding.mesh))(x)
        return np.asarray(x)

    return jax.tree.map(one, tree)


def is_first() -> bool:
    """Whether this is the process that prints and writes files."""
    return jax.process_index() == 0


def start_distributed(
    address: str | None = None, processes: int | None = None, rank: int | None = None
) -> None:
    """Joins the processes of a run; call it in each of them, before anything else uses JAX.

    Slurm, MPI and Kubernetes are found by JAX itself; elsewhere all three have to be given. If the
    others do not come within 6 `HEARTBEAT` seconds, or one is lost later (noticed after about one),
    JAX ends the process with a message and a nonzero exit code, whatever it was waiting for; a run
    then goes on from its checkpoint, on as many processes as there are.

    Args:
      address: "host:port" of the process of rank 0.

    Raises:
      ParallelError: only some of the three are given; none is and no cluster was found; or the
        address cannot be used.
    """
    given = [x is not None for x in (address, processes, rank)]
    if any(given) and not all(given):
        raise ParallelError("several processes need all three: address, processes and rank")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    try:
        jax.distributed.initialize(
            address,
            processes,
            rank,
            cluster_detection_method="deactivate" if all(given) else None,
            initialization_timeout=6 * HEARTBEAT,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=60 * HEARTBEAT,  # the first still writes and draws
        )
    except ValueError as error:
        raise ParallelError(
            f"no cluster was found to join ({error}): give address, processes and rank"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise ParallelError(f"the run at {address} cannot be joined ({error})") from error
