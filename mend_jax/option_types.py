"""Types of options, which say what is allowed.

    batch: Batch = 10                        # of a frozen dataclass

A type is `Annotated[int, between(1, 65_536)]`: what a value is, and a `Rule` for it. Commands show
the rule in `--help`, and `option_checks` keeps it. Upper bounds lie far above what anybody needs,
and below what only a slip of the hand asks for.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from mend_jax.parallel import parse_mesh


class OptionError(ValueError):
    """Options with values that are not allowed; names each, its value, and what is allowed."""


class Rule(NamedTuple):
    """What is allowed of an option beyond its type.

    says: in words, "from 1 to 8"; empty where the option's own text says it. refusal(value) -> why
    the value is not allowed, or an empty text.
    """

    says: str
    refusal: Callable[[Any], str]


def between(least: float, most: float) -> Rule:
    """Numbers from `least` to `most`, both included; NaN is none of them."""
    says = f"from {_number(least)} to {_number(most)}"
    return Rule(says, lambda x: "" if least <= x <= most else f"{says} is allowed")


def matching(pattern: str, wanted: str) -> Rule:
    """Texts that match a regular expression in full."""
    return Rule("", lambda text: "" if re.fullmatch(pattern, text) else f"{wanted} is wanted")


def accepted_by(read: Callable[[str], object]) -> Rule:
    """Texts that `read` takes; its ValueError or OSError says why not."""

    def refusal(text: str) -> str:
        try:
            read(text)
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    return Rule("", refusal)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _compiled(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from None


def _mesh(text: str) -> None:
    data, model = parse_mesh(text)
    if data * model > MOST_DEVICES:
        raise ValueError(f"{data * model:,} devices; at most {MOST_DEVICES:,} are allowed")


def _model(text: str) -> None:
    """A hub id says no more than that it could be one."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text) and not os.path.exists(text):
        raise ValueError("neither a file or folder that is there nor a name or hub id")


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    good = re.fullmatch(r"[^\s/]+", host) and re.fullmatch(r"[0-9]{1,5}", port)
    return "" if good and 0 < int(port) < 2**16 else "HOST:PORT is wanted"


def _there(path: Path) -> str:
    return "" if os.path.exists(path) else "there is no such file or folder"


def _a_folder(path: Path) -> str:
    return _there(path) or ("" if os.path.isdir(path) else "this is a file; a folder is wanted")


def _can_be_folder(path: Path) -> str:
    if os.path.lexists(path) and not os.path.isdir(path):
        return "this is a file; a folder is wanted"
    return _can_be_made(path)


def _can_be_file(path: Path) -> str:
    return "this is a folder; a file is wanted" if os.path.isdir(path) else _can_be_made(path)


def _can_be_made(path: Path) -> str:
    """Whether the nearest folder that is there can hold it."""
    for part in path.parts:
        if len(os.fsencode(part)) > 255:
            return "no file can have this name"
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    return "" if os.path.isdir(above) else f"{above} is a file, so nothing can be made in it"


MOST_DEVICES = 4096

Seed = Annotated[int, between(0, 2**32 - 1)]
"""What NumPy and JAX take alike."""
Steps = Annotated[int, between(1, 100_000_000)]
Times = Annotated[int, between(0, 1_000_000_000)]
"""How many, where 0 has a meaning: the option's text says which (all, none, never)."""
Some = Annotated[int, between(1, 1_000_000)]
"""How many, where there must be one."""
Number = Annotated[int, between(1, 1_000_000_000)]
"""Of an edit in a store."""
Batch = Annotated[int, between(1, 65_536)]
"""What is held in memory side by side."""
Few = Annotated[int, between(0, 1024)]
"""Pairs of one record; 0 is none."""
Rank = Annotated[int, between(1, 65_536)]
Tokens = Annotated[int, between(1, 4096)]
"""Of one text."""
Rate = Annotated[float, between(1e-12, 10.0)]
"""A learning rate or an edit rate: below, it changes no float32 weight; above, all diverges."""
Weight = Annotated[float, between(1e-6, 1e6)]
"""Of a part of a loss."""
Ridge = Annotated[float, between(1e-6, 1.0)]
"""Share of the identity in a correlation matrix: below, float32 cannot invert it."""
Share = Annotated[float, between(1e-6, 1.0)]
"""Of records or subjects."""
Radius = Annotated[float, between(1e-6, 1e6)]
Minutes = Annotated[float, between(1e-3, 1e5)]
Gigabytes = Annotated[float, between(1e-9, 1e4)]
Text = Annotated[str, matching(r"(?s).*\S.*", "a text that is not empty")]
Model = Annotated[str, accepted_by(_model)]
SiteNames = Annotated[str, accepted_by(_compiled)]
Mesh = Annotated[str, accepted_by(_mesh)]
Address = Annotated[str, Rule("", _address)]
ImportPath = Annotated[str, matching(r"(\w+(\.\w+)*:\w+(\.\w+)*)?", "package.module:name")]
"""Or nothing: there is none."""
Input = Annotated[Path, Rule("", _there)]
"""A file or folder to read."""
InputFolder = Annotated[Path, Rule("", _a_folder)]
OutFolder = Annotated[Path, Rule("", _can_be_folder)]
OutFile = Annotated[Path, Rule("", _can_be_file)]
