"""The JSON objects of a file, however they stand in it: JSONL, a JSON list, or one object."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mend_jax.data.records import RecordError
from mend_jax.data.sources.base import Row


def rows_of(path: Path) -> Iterator[Row]:
    """The objects of a file, each with its place in it.

    Raises:
      RecordError: not UTF-8, not JSON (with the line), or a value that is no object.
      FileNotFoundError: no such file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows begins a file with a mark
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 ({error})") from None
    for place, value in _values(path, text):
        if not isinstance(value, Mapping):
            raise RecordError(
                f"{path}, {place}: expected a JSON object, found {type(value).__name__}"
            )
        yield Row(str(path), place, value)


def _values(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """(where, value) of a list, of one object over several lines, or of lines."""
    lines = [
        (number, line)
        for number, line in enumerate(text.split("\n"), 1)  # splitlines() also splits in texts
        if line.strip()
    ]
    if text.lstrip()[:1] == "[":
        for number, value in enumerate(_parse(path, text), 1):
            yield f"record {number}", value
    elif _is_spread(line for _, line in lines[:2]):
        yield "the object", _parse(path, text)
    else:
        for number, line in lines:
            yield f"line {number}", _parse(path, line, number)


def _is_spread(lines: Iterable[str]) -> bool:
    """Whether an object goes on in the second line."""
    first, second = [*lines, "", ""][:2]
    return bool(second) and not first.rstrip().endswith("}") and second.lstrip()[:1] != "{"


def _parse(path: Path, text: str, line: int = 1) -> Any:
    """The value of a JSON text that begins in this line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}, line {line + error.lineno - 1}"
        raise RecordError(f"{where}: not valid JSON ({error.msg})") from None
