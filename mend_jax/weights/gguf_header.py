"""What a GGUF file says of itself: its metadata as plain values, and where its tensors lie.

Every length is held against the end of the file before it is believed. (The reader of the `gguf`
package makes an array for each token of a vocabulary, and goes on past the end of a damaged file.
What the kinds of tensors are is the package's to say.)
"""

import struct
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

_VERSIONS = (2, 3)
_TEXT, _LIST = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
"""Kinds of values, as the format numbers them."""


class Tensor(NamedTuple):
    """kind: `gguf.GGMLQuantizationType`. shape: the fastest axis first. begin: at which byte of the
    file. data: uint8, the bytes of each row along the last axis; mapped, as `gguf.dequantize` takes
    them."""

    name: str
    kind: Any
    shape: tuple[int, ...]
    begin: int
    data: np.ndarray


class Header(NamedTuple):
    """alignment: of the tensors, in bytes. end: the byte at which they may begin."""

    fields: dict[str, Any]
    tensors: list[Tensor]
    alignment: int
    end: int


def read_header(data: np.ndarray) -> Header:
    """The header of a file whose bytes these are; they begin with GGUF's four.

    Raises:
      ValueError: the file ends too early, is of another version, or says what cannot be; a text is
        not UTF-8.
      ImportError: the `gguf` package is not installed.
    """
    import gguf

    at = _Place(data)
    at.skip(4)
    version = at.number("I")
    if version not in _VERSIONS:
        swapped = version and version % 65536 == 0
        why = "its numbers are big-endian" if swapped else "it is not known here"
        raise ValueError(f"of version {version}: {why}")
    tensors, keys = at.number("Q"), at.number("Q")
    fields: dict[str, Any] = {}
    for _ in range(keys):
        _put(fields, at.text(), at.any_value)
    places: dict[str, tuple[list[int], int, int]] = {}
    for _ in range(tensors):
        _put(places, at.text(), at.tensor)
    alignment = fields.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"an alignment of {alignment!r}")
    end = at.byte + -at.byte % alignment
    found: list[Tensor] = []
    for name, (shape, number, offset) in places.items():
        kind = gguf.GGMLQuantizationType(number)
        rows = _rows(name, shape, *gguf.GGML_QUANT_SIZES[kind])
        begin = end + offset
        if begin + prod(rows) > len(data):
            raise ValueError(f"{name} should end at byte {begin + prod(rows)} of {len(data)}")
        there = data[begin : begin + prod(rows)].reshape(rows)
        found.append(Tensor(name, kind, tuple(shape), begin, there))
    return Header(fields, found, alignment, end)


def _put(table: dict[str, Any], key: str, read: Callable[[], Any]) -> None:
    if key in table:
        raise ValueError(f"{key!r} is there twice")
    table[key] = read()


class _Place:
    """A place in a file's bytes, which moves on with what is read."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.byte = data.data, 0

    def skip(self, size: int) -> int:
        """The place before so many bytes that are there."""
        begin, self.byte = self.byte, self.byte + size
        if self.byte > len(self.data):
            raise ValueError(
                f"a value should end at byte {self.byte} of {len(self.data)}, within the metadata"
            )
        return begin

    def number(self, form: str) -> Any:
        """A number of this form."""
        each = struct.Struct(f"<{form}")
        return each.unpack_from(self.data, self.skip(each.size))[0]

    def numbers(self, form: str, count: int) -> list[Any]:
        """So many of them."""
        kind = np.dtype(form).newbyteorder("<")
        begin = self.skip(kind.itemsize * count)
        values: list[Any] = np.frombuffer(self.data, kind, count, begin).tolist()
        return values

    def text(self) -> str:
        """A text, after its length."""
        begin = self.skip(self.number("Q"))
        return str(self.data[begin : self.byte], "utf-8")

    def value(self, kind: int) -> Any:
        """A value of this kind."""
        if kind == _TEXT:
            return self.text()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind != _LIST:
            raise ValueError(f"a value of the unknown kind {kind}")
        of, count = self.number("I"), self.number("Q")
        if of in _NUMBERS:
            return self.numbers(_NUMBERS[of], count)
        if of != _TEXT:
            raise ValueError(f"a list of values of kind {of}")
        return [self.text() for _ in range(count)]

    def any_value(self) -> Any:
        """A value, after its kind."""
        return self.value(self.number("I"))

    def tensor(self) -> tuple[list[int], int, int]:
        """A tensor's shape, kind, and offset from the first."""
        return self.numbers("Q", self.number("I")), self.number("I"), self.number("Q")


def _rows(name: str, shape: list[int], values: int, size: int) -> tuple[int, ...]:
    """The shape of a tensor's bytes, of which `size` are a block of so many values."""
    if not shape or shape[0] % values:
        raise ValueError(f"{name} has the shape {shape}, and blocks are of {values} values")
    return (*reversed(shape[1:]), shape[0] // values * size)
