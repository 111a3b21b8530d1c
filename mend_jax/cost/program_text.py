"""A compiled program's text, read: its computations, their instructions, and what each calls.

    %name = bf16[320,1024]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused, metadata={...}

is one instruction: a shape, an operation, its operands, and the rest, which `Instruction` keeps as
it is written and reads when asked. This is the text of XLA's `HloModule`, as `Compiled.as_text()`
gives it, after scheduling: what stands in the entry computation is what a device runs.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "opaque": 0}
"""Of types that do not name their bits. `bf16`, `s4` and `f8e4m3fn` do."""

HOST = 5
"""The memory space of the host."""

_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,<=]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.<>$-]+) \(.*-> .*\{$")
_NAME = re.compile(r"^ +(ROOT )?%?([\w.<>$-]+) = ")
_OPERAND = re.compile(r"%([\w.<>$-]+)")


class ProgramError(ValueError):
    """A text that is no compiled program, or calls what it does not hold."""


class Buffer(NamedTuple):
    """An array that an instruction makes: its type, its shape, and the memory space it lies in."""

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        """Numbers."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Rounded up to whole ones."""
        named = re.search(r"[0-9]+", self.dtype)
        bits = BITS.get(self.dtype, int(named[0]) if named else 0)
        return -(-self.size * bits // 8)


class Instruction(NamedTuple):
    """One line. buffers: what it makes, the parts of a tuple one after another. inside: what
    stands between its parentheses. rest: its attributes."""

    name: str
    buffers: tuple[Buffer, ...]
    operation: str
    inside: str
    rest: str

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of instructions of the same computation."""
        return tuple(_OPERAND.findall(self.inside))

    @property
    def bytes(self) -> int:
        """Of all that it makes."""
        return sum(buffer.bytes for buffer in self.buffers)

    @property
    def source(self) -> str:
        """The path in the traced function, `jit(step)/...`; empty if nothing is said."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.rest)
        return found[1] if found else ""

    def called(self, *keys: str) -> tuple[str, ...]:
        """The computations under these attributes (`calls`, `body`, ...), in the order written."""
        found = re.findall(rf"\b(?:{'|'.join(keys)})=(\{{[^}}]*\}}|%[\w.<>$-]+)", self.rest)
        return tuple(name for part in found for name in _OPERAND.findall(part))

    def numbers(self, key: str) -> tuple[int, ...]:
        """The whole numbers of an attribute such as `lhs_contracting_dims={1}`."""
        found = re.search(rf"\b{key}=\{{([0-9,]*)\}}", self.rest)
        return tuple(int(n) for n in found[1].split(",") if n) if found else ()


class Computation(NamedTuple):
    """Instructions by name, in the order in which they run; the root is the result."""

    instructions: Mapping[str, Instruction]
    root: str

    def parameters(self) -> dict[int, Instruction]:
        """By their number."""
        these = self.instructions.values()
        return {int(i.inside): i for i in these if i.operation == "parameter"}

    def users(self) -> dict[str, list[Instruction]]:
        """Of each instruction: those that take what it makes."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                if name in found:
                    found[name].append(instruction)
        return found


class Program(NamedTuple):
    """All computations of a program, the name of the one that is run, and the text's first line."""

    computations: Mapping[str, Computation]
    entry: str
    head: str

    def computation(self, name: str) -> Computation:
        """One of them.

        Raises:
          ProgramError: the text does not hold it.
        """
        if name not in self.computations:
            raise ProgramError(f"the program calls {name}, which is not in its text")
        return self.computations[name]

    def aliased(self) -> frozenset[int]:
        """The numbers of the parameters whose memory a result takes over (donated arguments)."""
        found = re.findall(r"\{[0-9, ]*\}: \((\d+), \{[0-9, ]*\}", self.head)
        return frozenset(map(int, found))


def parse_program(text: str) -> Program:
    """Reads the text of a compiled program.

    Raises:
      ProgramError: it holds no entry computation, or a line that cannot be read.
    """
    computations: dict[str, Computation] = {}
    head, entry, name, root = text.partition("\n")[0], "", "", ""
    lines: dict[str, Instruction] = {}
    for line in text.splitlines():
        if not name:
            if opened := _HEAD.match(line):
                name, lines, root = opened[2], {}, ""
                entry = name if opened[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(lines, root or next(reversed(lines), ""))
            name = ""
        elif named := _NAME.match(line):
            lines[named[2]] = _instruction(named[2], line[named.end() :])
            root = named[2] if named[1] else root
    if not entry or name:
        raise ProgramError("this is not the whole text of a compiled program: no entry was found")
    return Program(computations, entry, head)


def _instruction(name: str, text: str) -> Instruction:
    """What stands behind `%name = `."""
    end = _closing(text) if text.startswith("(") else text.find(" ")
    opened = text.find("(", end)
    if end < 0 or opened < 0:
        raise ProgramError(f"the instruction {name} of the program cannot be read: {text[:80]!r}")
    closed = _closing(text, opened)
    shape, operation = text[:end], text[end:opened].strip()
    return Instruction(name, _buffers(shape), operation, text[opened + 1 : closed - 1],
                       text[closed:])  # fmt: skip


def _buffers(shape: str) -> tuple[Buffer, ...]:
    """The arrays of a shape, which is one array or a tuple (of tuples)."""
    found = []
    for dtype, sizes, layout in _ARRAY.findall(shape):
        space = re.search(r"S\((\d+)\)", layout)
        dimensions = tuple(int(n.lstrip("<=")) for n in sizes.split(",") if n)
        found.append(Buffer(dtype, dimensions, int(space[1]) if space else 0))
    return tuple(found)


def _closing(text: str, start: int = 0) -> int:
    """Where the parenthesis that opens at `start` has been closed; what is quoted does not count.

    Raises:
      ProgramError: it is not closed.
    """
    depth, quoted = 0, False
    for match in re.finditer(r'\\.|["()]', text[start:]):
        sign = match[0]
        if sign == '"':
            quoted = not quoted
        elif not quoted and sign in "()":
            depth += 1 if sign == "(" else -1
            if not depth:
                return start + match.end()
    raise ProgramError(f"a parenthesis of the program is not closed: {text[:80]!r}")
