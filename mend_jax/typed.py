"""JSON values checked by type: the fields of a file are written down once, as a TypedDict.

    class Index(TypedDict):
        weight_map: dict[str, str]

    checked(Index, value, "model.safetensors.index.json", WeightsError)["weight_map"]
"""

import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def checked(
    kind: type[T] | types.GenericAlias, value: Any, where: str, error: type[Exception]
) -> T:
    """A JSON value that has the fields of a TypedDict, each of its type; others may be there, too.

    Raises:
      error: it has not; the message names `where` (the file) and every key at fault.
    """
    problems = list(_misfits(kind, value, ""))
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise error(f"{where}: {'; '.join(problems[:5])}{more}")
    found: T = value
    return found


def _misfits(hint: Any, value: Any, at: str) -> Iterator[str]:
    """What is wrong with a value, and where, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return
    if origin in (typing.Required, typing.NotRequired):
        yield from _misfits(inner[0], value, at)
    elif origin in (typing.Union, types.UnionType):
        if all(any(_misfits(one, value, at)) for one in inner):
            yield _wrong(at, " or ".join(map(_name, inner)), value)
    elif typing.is_typeddict(hint):
        if not isinstance(value, Mapping):
            yield _wrong(at, "an object", value)
            return
        for key, one in typing.get_type_hints(hint, include_extras=True).items():
            if key in value:
                yield from _misfits(one, value[key], f"{at}.{key}" if at else key)
            elif key in hint.__required_keys__:
                yield f"{f'{at}.{key}' if at else key} is missing"
    elif origin in (dict, list):
        if not isinstance(value, origin):
            yield _wrong(at, _name(hint), value)
            return
        values = value.values() if origin is dict else value
        if inner[-1] in (str, int) and {inner[-1]}.issuperset(map(type, values)):
            return  # as in a vocabulary, which is long
        items: Iterable[tuple[Any, Any]] = value.items() if origin is dict else enumerate(value)
        for key, one in items:
            yield from _misfits(inner[-1], one, f"{at}[{key!r}]")
    elif origin is Literal:
        if value not in inner:
            yield _wrong(at, " or ".join(map(repr, inner)), value)
    elif hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value)):
            yield _wrong(at, "a finite number", value)
    elif not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        yield _wrong(at, _name(hint), value)


_NAMES = {str: "a text", int: "a whole number", bool: "true or false", dict: "an object",
          list: "a list", type(None): "null", float: "a finite number"}  # fmt: skip


def _name(hint: Any) -> str:
    return _NAMES.get(typing.get_origin(hint) or hint, "an object")


def _wrong(at: str, wanted: str, value: Any) -> str:
    text = repr(value)
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{at or 'the file'} must be {wanted}, found {short}"
