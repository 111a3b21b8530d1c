"""What damages files: their bytes, and the values of JSON, in ways that readers stumble over."""

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

RAW = "@@raw{}@@"
"""A text that stands for a piece of JSON no Python value has."""

NUMBERS = ["0", "-1", "1", "2", "1.0", "2147483647", "-2147483648", "18446744073709551615",
           "1e308", "1e999", "NaN", "-Infinity", "1" * 40, "7" * 5000, "0.1", "true"]  # fmt: skip
TEXTS = ['""', '"x"', '"\\ud83d"', '"../../x"', '"/etc/passwd"', '"F16"', '"nan"', '"\\u0000"',
         '"' + "long" * 5000 + '"', '"0"', '"llama"', "null"]  # fmt: skip
SHAPES = ["[]", "{}", "[0]", "[[[1]]]", '{"a": 1}', "[" * 100_000 + "]" * 100_000,
          "[" * 90 + "]" * 90, "[null]", "[-1, 2]",
          '[["global", "local"], 2147483647]']  # fmt: skip


def of_bytes(raw: bytes, random: Random) -> bytes:
    """One bit flipped, one byte changed, cut, emptied, grown, or a piece taken out or moved."""
    if not raw:
        return b"x"
    at, to = random.randrange(len(raw)), random.randrange(len(raw) + 1)
    first, last = min(at, to), max(at, to)
    ways: list[Callable[[], bytes]] = [
        lambda: raw[:at] + bytes([raw[at] ^ 1 << random.randrange(8)]) + raw[at + 1 :],
        lambda: raw[:at] + bytes([random.randrange(256)]) + raw[at + 1 :],
        lambda: raw[:at],
        lambda: b"",
        lambda: raw + raw[at : at + 64],
        lambda: raw[:first] + raw[last:],
        lambda: raw[:at] + raw[first:last][:50] + raw[at:],
        lambda: raw[:at] + b"\x00" * min(8, len(raw) - at) + raw[at + 8 :],
        lambda: raw[:at] + b"\xff" * min(8, len(raw) - at) + raw[at + 8 :],
    ]
    return random.choice(ways)()


def of_json(value: Any, random: Random) -> str:
    """The text of a JSON value in which one place or two are others, gone, there twice, renamed."""
    value = copy.deepcopy(value)
    pieces: list[str] = []
    for _ in range(random.choice((1, 1, 1, 2))):
        places = list(_places(value))
        if not places:
            break
        parent, key = random.choice(places)
        way = random.random()
        if way < 0.6:
            pieces.append(random.choice(random.choice((NUMBERS, TEXTS, SHAPES))))
            parent[key] = RAW.format(len(pieces) - 1)
        elif way < 0.7:
            del parent[key]
        elif way < 0.8 and isinstance(parent, dict):
            pieces.append(json.dumps(parent[key]) + f", {json.dumps(key)}: 0")
            parent[key] = RAW.format(len(pieces) - 1)
        elif way < 0.9 and isinstance(parent, dict):
            parent[random.choice(("x", key + " ", key[1:], key.upper()))] = parent.pop(key)
        else:
            other, there = random.choice(places)
            parent[key] = copy.deepcopy(other[there])
    text = json.dumps(value)
    for i, piece in enumerate(pieces):
        text = text.replace(json.dumps(RAW.format(i)), piece)
    return text


def _places(value: Any) -> Any:
    """(container, key) of everything inside of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
