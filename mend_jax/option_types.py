"""Types of options, which say what is allowed, and the one check that a config class goes through.

    batch: Batch = 10                        # of a frozen dataclass
    check_options(config)                    # --batch 0: from 1 to 65,536 is allowed

A type is `Annotated[int, between(1, 65_536)]`: what a value is, and a `Rule` for it. Commands show
the rule in `--help`; every function that takes a config begins with the check, so that a config
made in Python goes through it too. What concerns two options together is checked where they meet.
Upper bounds lie far above what anybody needs, and below what only a slip of the hand asks for.
"""

import dataclasses
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

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

OWN = "own"
"""The field whose groups of options are named without it: `--ft.steps`, not `--own.ft.steps`."""


class Option(NamedTuple):
    """One option of a config class: as it is typed, without dashes (`ft.learning-rate`); its field,
    its type, the class that it is a field of, and the fields that lead to it."""

    name: str
    field: dataclasses.Field[Any]
    hint: Any
    owner: type[Any]
    path: tuple[str, ...]


def options_of(config: type[Any], path: tuple[str, ...] = ()) -> Iterator[Option]:
    """The options of a config class, and those of the groups in it."""
    hints = hints_of(config)
    for field in dataclasses.fields(config):
        here = (*path, field.name)
        if is_group(hints[field.name]):
            yield from options_of(plain(hints[field.name]), here)
        else:
            name = ".".join(part for part in here if part != OWN).replace("_", "-")
            yield Option(name, field, hints[field.name], config, here)


def hints_of(config: type[Any]) -> dict[str, Any]:
    """The types of a class's fields. A field that a subclass gives another default keeps its rules,
    unless it brings its own."""
    found: dict[str, Any] = {}
    for cls in reversed(config.__mro__):
        for name, hint in inspect.get_annotations(cls, eval_str=True).items():
            inherited = [] if rules_of(hint) else rules_of(found.get(name))
            found[name] = Annotated[hint, *inherited] if inherited else hint
    return found


def plain(hint: Any) -> Any:
    """The type without Annotated and without None."""
    if typing.get_origin(hint) is Annotated:
        return plain(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return plain(next(x for x in typing.get_args(hint) if x is not types.NoneType))
    return hint


def is_group(hint: Any) -> bool:
    """Whether it is a class of options in its turn."""
    return dataclasses.is_dataclass(plain(hint))


def rules_of(hint: Any) -> list[Rule]:
    """All rules in a type, those of the parts of a union or a tuple included."""
    mine = [x for x in getattr(hint, "__metadata__", ()) if isinstance(x, Rule)]
    return mine + [rule for part in typing.get_args(hint) for rule in rules_of(part)]


def check_options(config: Any) -> None:
    """Refuses a config with a value of another type than its field's, or that breaks its rule.

    Raises:
      OptionError: it has one, or several; all are named.
    """
    wrong = []
    for option in options_of(type(config)):
        value = config
        for name in option.path:
            value = getattr(value, name)
        if said := refusal(option.hint, value):
            wrong.append(f"--{option.name} {_shown(value)}: {said}")
    if wrong:
        raise OptionError("; ".join(wrong))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return str(value) if isinstance(value, Path) else repr(value)


def refusal(hint: Any, value: Any) -> str:
    """Why a value is not of a type, or not allowed; an empty text if it is.

    Raises:
      TypeError: a type that options do not have.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        said = refusal(parts[0], value)
        rules = (x.refusal(value) for x in hint.__metadata__ if isinstance(x, Rule))
        return said or (next(filter(None, rules), "") if value is not None else "")
    if origin in (typing.Union, types.UnionType):
        others = [part for part in parts if part is not types.NoneType]
        if value is None and len(others) < len(parts):
            return ""
        return min((refusal(part, value) for part in others), key=len)
    if origin is Literal:
        return "" if value in parts else f"{' or '.join(map(str, parts))} is allowed"
    if origin is tuple:
        if not isinstance(value, tuple):
            return "a tuple is wanted"
        found = ((part, refusal(parts[0], part)) for part in value)
        return next((f"of {_shown(part)}, {said}" for part, said in found if said), "")
    return _of_type(hint, value)


def _of_type(kind: Any, value: Any) -> str:
    """A bool is no number, a whole number is a float, and a number that is not finite is neither;
    a text has no NUL and no half of a surrogate pair."""
    wanted = {int: "a whole number", float: "a number", str: "a text", bool: "True or False",
              Path: "a path"}  # fmt: skip
    if kind not in wanted:
        raise TypeError(f"options are not of type {kind!r}")
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        return f"{wanted[kind]} is wanted"
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number is wanted"
    try:  # an undecodable byte may stand in the name of a file, but not in a text
        whole = value.encode() if isinstance(value, str) else os.fsencode(str(value))
    except UnicodeEncodeError:
        return "half of a surrogate pair stands in it"
    return "it holds the character NUL" if b"\0" in whole else ""
