"""The JSON objects of a file, however they stand in it: JSONL, a JSON list, or one object."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mend_jax.data.fields import RecordError
from mend_jax.data.sources.base import Row
from mend_jax.files import parse_json, read_text


def rows_of(path: Path) -> Iterator[Row]:
    """The objects of a file, each with its place in it.

    Raises:
      RecordError: not UTF-8, not JSON that can be used (with the line; as `parse_json` says), or
        a value that is no object.
      FileNotFoundError: no such file.
    """
    text = read_text(path, RecordError)
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
        for number, value in enumerate(parse_json(text, path, RecordError), 1):
            yield f"record {number}", value
    elif _is_spread(line for _, line in lines[:2]):
        yield "the object", parse_json(text, path, RecordError)
    else:
        for number, line in lines:
            yield f"line {number}", parse_json(line, path, RecordError, number)


def _is_spread(lines: Iterable[str]) -> bool:
    """Whether an object goes on in the second line."""
    first, second = [*lines, "", ""][:2]
    return bool(second) and not first.rstrip().endswith("}") and second.lstrip()[:1] != "{"
