"""What the devices of a program send each other, and over which axis of the mesh.

Bytes that one device sends for an operand of so many bytes, in a group of n, the best known way:

    all-gather              (n - 1) * bytes
    all-reduce        2 (n - 1) / n * bytes
    reduce-scatter      (n - 1) / n * bytes
    all-to-all          (n - 1) / n * bytes
    collective-permute                bytes

A device's number is its place in the mesh, row after row: that is how programs number them.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from mend_jax.cost.program_text import Buffer, Instruction, ProgramError

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast", "ragged-all-to-all",
)  # fmt: skip

Groups = tuple[tuple[int, ...], ...]


class Collective(NamedTuple):
    """One of them; times: in a run of the program. bytes: of a device's operands. groups: the
    devices that it joins, `()` for all; of a collective-permute (from, to)."""

    kind: str
    name: str
    source: str
    times: int
    bytes: int
    groups: Groups

    @property
    def members(self) -> int:
        """Devices of a group; 0 if it is all of them."""
        return len(self.groups[0]) if self.groups else 0

    def sent(self, devices: int) -> float:
        """Bytes that a device sends in one of the `times`."""
        n = self.members or devices
        ways = {"all-gather": n - 1, "all-reduce": 2 * (n - 1) / n}
        if self.kind.startswith(("collective-permute", "collective-broadcast")):
            return float(self.bytes)
        return ways.get(self.kind, (n - 1) / n) * self.bytes

    @property
    def moved(self) -> int:
        """Bytes that a device reads and writes of its own memory; of all devices, two count."""
        n = self.members or 2
        more = {"all-gather": n * self.bytes, "reduce-scatter": self.bytes // n}
        return self.bytes + more.get(self.kind, self.bytes)


def collective_of(
    instruction: Instruction, operands: Iterable[Buffer], times: int
) -> Collective:
    """Reads an instruction that is one of `COLLECTIVES`, or the start of one.

    Raises:
      ProgramError: its groups are written in an unknown way.
    """
    kind = instruction.operation.removesuffix("-start")
    size = sum(buffer.bytes for buffer in operands)
    groups = groups_of(instruction.rest)
    return Collective(kind, instruction.name, instruction.source, times, size, groups)


def groups_of(text: str) -> Groups:
    """The groups that an instruction's attributes name, in any of the ways of XLA's texts:

        replica_groups={{0,1},{2,3}}    replica_groups=[2,4]<=[4,2]T(1,0)
        replica_groups=mesh['a'=2,'b'=4] {'b'}        source_target_pairs={{0,1},{1,0}}

    Raises:
      ProgramError: in another way.
    """
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{((?:\{[0-9,]*\},?)*)\}", text)
    if listed:
        found = re.findall(r"\{([0-9,]+)\}", listed[1])
        return tuple(tuple(int(n) for n in group.split(",")) for group in found)
    counted = re.search(r"replica_groups=\[([0-9,]+)\]<=\[([0-9,]+)\](?:T\(([0-9,]+)\))?", text)
    if counted:
        shape, order, turned = (x or "" for x in counted.groups())
        return _rows(_turned(order, turned), int(shape.split(",")[-1]))
    order = r"(?:, device_ids=\(\[([0-9,]+)\]T\(([0-9,]+)\)\))?"
    named = re.search(rf"replica_groups=mesh\[([^\]]*)\]{order} \{{([^}}]*)\}}", text)
    if named:
        mesh, shape, turned, axes = (x or "" for x in named.groups())
        return _on_mesh(mesh, axes, _turned(shape, turned))
    if "replica_groups" not in text:
        return ()
    raise ProgramError(f"a collective's groups cannot be read: {text[:120]!r}")


def _turned(shape: str, order: str) -> np.ndarray:
    """All devices in the order that `[2,4]T(1,0)` means; empty if nothing is said."""
    sizes = [int(n) for n in shape.split(",") if n]
    axes = [int(n) for n in order.split(",") if n]
    ids = np.arange(np.prod(sizes) if sizes else 0, dtype=np.int64)
    return ids.reshape(sizes or (0,)).transpose(axes or None)


def _on_mesh(mesh: str, axes: str, ids: np.ndarray) -> Groups:
    """Of `'a'=2,'b'=4` and `'b'`, or `'b':(2)2`: of b's four, taken as 2 x 2, the second two; and
    of the devices, if they are not in order."""
    sizes = {name: int(n) for name, n in re.findall(r"'?(\w+)'?=(\d+)", mesh)}
    parts = {name: (1, n, 1) for name, n in sizes.items()}  # before, joined, behind
    joined = re.findall(r"'?(\w+)'?(?::\((\d+)\)(\d+))?", axes)
    for name, before, size in joined:
        if size:
            first, n = int(before), int(size)
            parts[name] = (first, n, sizes[name] // (first * n))
    shape = [n for part in parts.values() for n in part]
    ids = (ids if ids.size else np.arange(np.prod(shape))).reshape(shape)
    inner = [3 * list(sizes).index(name) + 1 for name, *_ in joined]
    outer = [i for i in range(ids.ndim) if i not in inner]
    return _rows(ids.transpose(outer + inner), int(np.prod([shape[i] for i in inner])))


def _rows(ids: np.ndarray, length: int) -> Groups:
    return tuple(tuple(int(n) for n in row) for row in ids.reshape(-1, length))


def axes_of(groups: Groups, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh {name: size} along which devices of one group differ."""
    sizes = tuple(mesh.values())
    groups = groups or (tuple(range(int(np.prod(sizes)))),)
    across = set()
    for group in groups:
        places = np.array([np.unravel_index(device, sizes) for device in group])
        across |= {i for i in range(len(sizes)) if len(set(places[:, i])) > 1}
    return tuple(name for i, name in enumerate(mesh) if i in across)


def sent_over(collectives: Iterable[Collective], mesh: Mapping[str, int]) -> dict[str, float]:
    """Bytes that a device sends in a run of the program along each axis; what runs along several
    at once is under their names with a plus between ("data+model")."""
    found = dict.fromkeys(mesh, 0.0)
    devices = int(np.prod(list(mesh.values())))
    for one in collectives:
        if axes := axes_of(one.groups, mesh):
            name = "+".join(axes)
            found[name] = found.get(name, 0.0) + one.times * one.sent(devices)
    return found
