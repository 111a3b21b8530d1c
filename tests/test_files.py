"""JSON that is damaged, or does damage, is one error with file and line; so are other types."""

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pytest

from mend_jax.data.fields import RecordError
from mend_jax.data.sources.json_file import rows_of
from mend_jax.files import array_checksum, json_checksum, parse_json, read_json
from mend_jax.typed import checked

REFUSED = {
    "lone high surrogate": (r'{"a": "\ud83d is"}', "half a character"),
    "lone low surrogate": (r'{"a": "\\\ude00"}', "half a character"),
    "in a key": (r'{"\uD800": 1}', "half a character"),
    "two high ones": (r'{"a": "\ud83d\ud83d\ude00"}', "half a character"),
    "deep": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "lists and objects more than 100"),
    "less deep": ('{"a": ' + "[" * 100 + "]" * 100 + "}", "lists and objects more than 100 deep"),
    "deep objects": ('{"a": ' * 200 + "1" + "}" * 200, "lists and objects more than 100 deep"),
    "digits": ('{"a": ' + "1" * 5000 + "}", "a number of 5,000 digits"),
    "fewer digits": ('{"a": -' + "1" * 101 + "}", "a number of 101 digits"),
    "twice": ('{"a": 1, "b": [{"a": 2}], "a": 3}', "the key 'a' twice"),
    "twice, escaped": (r'{"a": 1, "\u0061": 3}', "the key 'a' twice"),
    "no JSON": ('{"a": 1', "not valid JSON"),
    "after the end": ('{"a": 1} x', "not valid JSON"),
}


class FileError(Exception):
    pass


@pytest.mark.parametrize("text, message", REFUSED.values(), ids=list(REFUSED))
def test_json_that_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "x.json"
    path.write_text(f"\n\n{text}")
    with pytest.raises(FileError, match=f"x.json, line 3: {message}.* Fetch it"):
        read_json(path, FileError, "Fetch it")


@pytest.mark.parametrize("text, message", REFUSED.values(), ids=list(REFUSED))
def test_records_that_are_refused(tmp_path: Path, text: str, message: str):
    good = '{"prompt": "a", "target": "b"}'
    (tmp_path / "x.jsonl").write_text(f"{good}\n{text}\n{good}")
    (tmp_path / "x.json").write_text(f"[{good},\n{text},\n{good}]")
    for name in ("x.jsonl", "x.json"):
        with pytest.raises(RecordError, match=rf"{name}, line \d: "):
            list(rows_of(tmp_path / name))
    with pytest.raises(RecordError, match=f"x.jsonl, line 2: {message}"):
        list(rows_of(tmp_path / "x.jsonl"))


@pytest.mark.parametrize(
    "value",
    [{"a": "\\ud83d 😀 \\\\ude00 \n"}, {"a": [{"a": 1}, {"a": 1}]}, 1e300, "[[[{{", [-12, 1.5e-7]],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("ascii", [True, False])
def test_json_that_is_read(value: Any, ascii: bool):
    assert parse_json(json.dumps(value, ensure_ascii=ascii), "x", FileError) == value
    deep: Any = json.loads("[" * 99 + "]" * 99)
    assert parse_json(json.dumps([deep]), "x", FileError) == [deep]


def test_what_is_no_utf8(tmp_path: Path):
    (tmp_path / "x.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(FileError, match="x.json: not UTF-8"):
        read_json(tmp_path / "x.json", FileError)
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x.json", FileError) == {"a": 1}


class Inner(TypedDict):
    size: int


class Outer(TypedDict):
    name: str
    rate: float
    many: dict[str, list[int]]
    inner: NotRequired[Inner]
    maybe: NotRequired[str | None]
    on: NotRequired[bool]


GOOD: dict[str, Any] = {"name": "x", "rate": 1, "many": {"a": [1, 2]}, "maybe": None, "more": []}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": 3}, "name must be a text, found 3"),
        ({"name": None}, "name must be a text, found None"),
        ({"rate": "1"}, "rate must be a finite number, found '1'"),
        ({"rate": float("nan")}, "rate must be a finite number, found nan"),
        ({"rate": float("inf")}, "rate must be a finite number"),
        ({"rate": True}, "rate must be a finite number"),
        ({"many": []}, "many must be an object"),
        ({"many": {"a": [1, 2.0]}}, r"many\['a'\]\[1\] must be a whole number, found 2.0"),
        ({"many": {"a": [True]}}, r"many\['a'\]\[0\] must be a whole number, found True"),
        ({"inner": {}}, "inner.size is missing"),
        ({"inner": {"size": "x" * 999}}, r"inner.size must be a whole number, found '\w+\.\.\.$"),
        ({"maybe": 1}, "maybe must be a text or null, found 1"),
        ({"on": 1}, "on must be true or false, found 1"),
        ({"on": 1, "name": 1}, "name must .*; on must"),
    ],
)
def test_other_types_are_named(changes: dict, message: str):
    assert checked(Outer, GOOD, "f", FileError) == GOOD
    with pytest.raises(FileError, match=f"^f: {message}"):
        checked(Outer, GOOD | changes, "f", FileError)


def test_what_is_no_object():
    with pytest.raises(FileError, match="f: the file must be an object, found 3"):
        checked(Outer, 3, "f", FileError)


def test_checksums_tell_every_bit_shape_and_dtype():
    one = np.arange(6, dtype=np.float32)
    others = [one.reshape(2, 3), one.view(np.int32)]
    for bit in range(8 * one.nbytes):
        raw = bytearray(one.tobytes())
        raw[bit // 8] ^= 1 << bit % 8
        others.append(np.frombuffer(bytes(raw), np.float32))
    assert len({array_checksum(x) for x in [one, *others]}) == 1 + len(others)
    assert array_checksum(one.reshape(2, 3).T) == array_checksum(one.reshape(2, 3).T.copy())
    assert json_checksum({"a": 1, "b": 2}) == json_checksum({"b": 2, "a": 1})
    assert json_checksum({"a": 1}) != json_checksum({"a": 1.0})
