"""The one check that a config class goes through: each option is of its type, and keeps its rule.

    check_options(config)                    # --batch 0: from 1 to 65,536 is allowed

Every function that takes a config begins with it, so that a config made in Python goes through it
too. What concerns two options together is checked where they meet.
"""

import dataclasses
import inspect
import math
import os
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from mend_jax.option_types import OptionError, Rule

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
