"""Fields of a JSON object that a record is made of: each is there and of its type, or an error says
where it is not.
"""

from collections.abc import Mapping
from typing import Any

from mend_jax.data.messages import Chat, check_messages


class RecordError(ValueError):
    """A record that cannot be used; says file, line and field."""


def given_separator(row: Mapping[str, Any], where: str, default: str | None) -> str | None:
    """The field "separator", a text or nothing; `default` where it is absent."""
    separator = row.get("separator", default)
    if separator is not None and not isinstance(separator, str):
        found = type(separator).__name__
        raise RecordError(f"{where}: 'separator' must be a text, or null, found {found}")
    return separator


def prompt_of(row: Mapping[str, Any], where: str) -> str:
    """The field "prompt", or the chat in "messages"."""
    if "messages" not in row:
        return text_of(row, "prompt", where)
    if "prompt" in row:
        raise RecordError(f"{where}: 'prompt' and 'messages' are both there: one of them is wanted")
    try:
        check_messages(row["messages"])
        return Chat(row["messages"])
    except ValueError as error:
        raise RecordError(f"{where}: 'messages': {error}") from None


def text_of(row: Mapping[str, Any], field: str, where: str, required: bool = True) -> str:
    """A field that holds a text; without `required`, "" where it is absent or blank."""
    value = row.get(field)
    if value is None and not required:
        return ""
    if value is None:
        raise RecordError(f"{where}: the field {field!r} is missing")
    if not isinstance(value, str):
        raise RecordError(f"{where}: {field!r} must be a text, found {type(value).__name__}")
    if not value.strip():
        if required:
            raise RecordError(f"{where}: {field!r} is empty")
        return ""
    return value


def texts_of(
    row: Mapping[str, Any], field: str, where: str, required: bool = True, blank: bool = False
) -> tuple[str, ...]:
    """A field that holds a list of texts; with `blank`, there may be empty ones."""
    texts = list_of(row, field, where, required)
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not (blank or text.strip()):
            wanted = "a text" if blank else "a text that is not empty"
            raise RecordError(f"{where}: {field}[{i}] must be {wanted}")
    return tuple(texts)


def list_of(row: Mapping[str, Any], field: str, where: str, required: bool) -> list[Any]:
    """A field that holds a list; without `required`, none where it is absent."""
    value = row.get(field)
    if value is None and not required:
        return []
    if value is None:
        raise RecordError(f"{where}: the field {field!r} is missing")
    if not isinstance(value, list):
        raise RecordError(f"{where}: {field!r} must be a list, found {type(value).__name__}")
    return value
