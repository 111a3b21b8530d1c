"""What a compiled program makes a device do: kernels launched, bytes they move, what they multiply.

A kernel of a loop counts as often as the loop runs, one of a command buffer like any other, and of
the branches of a conditional the one that moves most. A fused kernel reads of each operand what it
uses: of one that it only cuts slices out of, the slices; where it writes into an array in place,
what it writes. Caches are not modelled: what two kernels read is read twice.

    FLOPs of a product = 2 * numbers of its result * length of what is summed over

whoever does it: a call of a library, a fused product, or a multiplication that is summed up, which
is what the compiler makes of a product with one row. The sum may be another kernel's.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from mend_jax.cost.collectives import COLLECTIVES, Collective, collective_of
from mend_jax.cost.program_text import Buffer, Computation, Instruction, Program, ProgramError

NO_KERNEL = {
    "parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "domain",
    "opt-barrier", "optimization-barrier", "add-dependency", "partition-id", "replica-id",
}  # fmt: skip
"""Operations that move nothing."""

SLICES = ("slice", "dynamic-slice", "gather")
LIBRARY = ("__cublas$gemm", "__cublas$lt$matmul")
"""Calls that multiply; with `$f8` behind it, too."""


class Kernel(NamedTuple):
    """One launch, or one for each pass of a loop.

    times: how often it is launched in a run of the program. bytes, flops: of one launch; flops of
    matrix products only. dtype: of what is multiplied, empty if nothing is. by: "library",
    "fusion" or "reduction" multiplies, or empty. source: the path in the traced function.
    """

    name: str
    source: str
    times: int
    bytes: int
    flops: float = 0.0
    dtype: str = ""
    by: str = ""


class Work(NamedTuple):
    """All that a run of a program does on each device.

    collectives: also among the kernels. endless: loops whose number of passes the program does not
    say; each is counted as one.
    """

    kernels: tuple[Kernel, ...]
    collectives: tuple[Collective, ...]
    endless: int

    @property
    def launches(self) -> int:
        """Kernels launched."""
        return sum(kernel.times for kernel in self.kernels)

    @property
    def bytes(self) -> int:
        """Read and written."""
        return sum(kernel.times * kernel.bytes for kernel in self.kernels)

    @property
    def flops(self) -> float:
        """Of matrix products."""
        return sum(kernel.times * kernel.flops for kernel in self.kernels)

    @property
    def products(self) -> tuple[Kernel, ...]:
        """The kernels that multiply matrices."""
        return tuple(kernel for kernel in self.kernels if kernel.by)


def work_of(program: Program) -> Work:
    """Counts a program.

    Raises:
      ProgramError: it calls what its text does not hold.
    """
    return _run(program, program.entry, 1)


def _run(program: Program, name: str, times: int) -> Work:
    """One computation, so many times."""
    computation = program.computation(name)
    kernels: list[Kernel] = []
    collectives: list[Collective] = []
    endless = 0
    for instruction in computation.instructions.values():
        operation = instruction.operation.removesuffix("-start")
        if inner := _inner(program, instruction, times):
            kernels += inner.kernels
            collectives += inner.collectives
            endless += inner.endless
        elif operation in COLLECTIVES:
            found = collective_of(instruction, _operands(computation, instruction), times)
            collectives.append(found)
            kernels.append(Kernel(instruction.name, instruction.source, times, found.moved))
        elif operation not in NO_KERNEL and not operation.endswith(("-done", "-update")):
            kernels.append(_kernel(program, computation, instruction, times))
    return Work(tuple(kernels), tuple(collectives), endless)


def _inner(program: Program, instruction: Instruction, times: int) -> Work | None:
    """What runs inside of a loop, a conditional, a command buffer; None if it is a kernel."""
    operation = instruction.operation
    if operation == "while":
        said = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', instruction.rest)
        passes = int(said[1]) if said else 1
        parts = [_run(program, name, times * passes) for name in instruction.called("body")]
        tests = times * (passes + 1)  # the last one ends the loop
        parts += [_run(program, name, tests) for name in instruction.called("condition")]
        return _together(parts, 0 if said else 1)
    if operation == "conditional":
        keys = ("branch_computations", "true_computation", "false_computation")
        branches = [_run(program, name, times) for name in instruction.called(*keys)]
        return max(branches, key=lambda work: work.bytes)
    if operation in ("call", "async-start"):
        names = instruction.called("to_apply", "calls")
        return _together([_run(program, name, times) for name in names])
    return None


def _together(parts: list[Work], endless: int = 0) -> Work:
    kernels = tuple(kernel for part in parts for kernel in part.kernels)
    collectives = tuple(one for part in parts for one in part.collectives)
    return Work(kernels, collectives, endless + sum(part.endless for part in parts))


def _operands(computation: Computation, instruction: Instruction) -> tuple[Buffer, ...]:
    """The arrays that an instruction takes."""
    known = computation.instructions
    return tuple(b for name in instruction.operands if name in known for b in known[name].buffers)


def _kernel(
    program: Program, computation: Computation, instruction: Instruction, times: int
) -> Kernel:
    """What one launch does."""
    read = sum(buffer.bytes for buffer in _operands(computation, instruction))
    written, operation = instruction.bytes, instruction.operation.removesuffix("-start")
    products: list[tuple[float, str, str]] = []
    if operation == "fusion":
        (name,) = instruction.called("calls")
        body = program.computation(name)
        read, written = _read(body), _written(body)
        products = list(_products(program, body))
    elif operation == "custom-call" and (called := _library_product(computation, instruction)):
        products, written = [called], instruction.buffers[0].bytes  # the rest is scratch
    elif operation == "dot":
        products = [(*_dot(computation, instruction), "fusion")]
    elif operation == "copy":
        written = instruction.buffers[0].bytes  # of copy-start: the source and a token beside it
    flops = sum(flops for flops, _, _ in products)
    _, dtype, by = max(products, default=(0.0, "", ""))
    return Kernel(instruction.name, instruction.source, times, read + written, flops, dtype, by)


def _read(body: Computation) -> int:
    """Bytes that a fusion reads."""
    users = body.users()
    return sum(_used(body, users, one) for one in body.parameters().values())


def _used(body: Computation, users: dict[str, list[Instruction]], parameter: Instruction) -> int:
    """Bytes of an operand that are used."""
    whole, used, names = parameter.bytes, 0, [parameter.name]
    for name in names:
        if name == body.root:
            return whole
        for user in users[name]:
            first = user.operands[0] == name
            if user.operation == "bitcast":
                names.append(user.name)
            elif user.operation in SLICES and first:
                used += user.bytes
            elif not (user.operation == "dynamic-update-slice" and first):
                return whole
    return min(used, whole)


def _written(body: Computation) -> int:
    """Bytes that a fusion writes."""
    root = body.instructions[body.root]
    results = root.operands if root.operation == "tuple" else (root.name,)
    total = 0
    for name in results:
        result = body.instructions[name]
        while result.operation == "bitcast":
            result = body.instructions[result.operands[0]]
        if result.operation == "dynamic-update-slice":
            result = body.instructions[result.operands[1]]
        total += result.bytes
    return total


def _products(program: Program, body: Computation) -> Iterator[tuple[float, str, str]]:
    """FLOPs, type and way of each product in a fusion, and in fusions inside of it."""
    for one in body.instructions.values():
        if one.operation == "dot":
            yield (*_dot(body, one), "fusion")
        elif one.operation == "multiply" and one.source.endswith("dot_general"):
            yield 2.0 * one.buffers[0].size, one.buffers[0].dtype, "reduction"
        elif one.operation == "fusion":
            for name in one.called("calls"):
                yield from _products(program, program.computation(name))


def _dot(computation: Computation, dot: Instruction) -> tuple[float, str]:
    """FLOPs and type."""
    return _flops(computation, dot, dot.numbers("lhs_contracting_dims"))


def _library_product(
    computation: Computation, call: Instruction
) -> tuple[float, str, str] | None:
    """FLOPs, type and way of a library's call; None if it does not multiply."""
    if not re.search(r'custom_call_target="(' + "|".join(map(re.escape, LIBRARY)) + ")", call.rest):
        return None
    said = re.search(r'"lhs_contracting_dimensions":\[([0-9",]*)\]', call.rest)
    if said is None:
        raise ProgramError(f"the call {call.name} does not say what it sums over")
    summed = tuple(int(n) for n in re.findall(r"\d+", said[1]))
    return (*_flops(computation, call, summed), "library")


def _flops(
    computation: Computation, product: Instruction, summed: tuple[int, ...]
) -> tuple[float, str]:
    left = _operands(computation, product)[0]
    return 2.0 * product.buffers[0].size * math.prod(left.shape[i] for i in summed), left.dtype
