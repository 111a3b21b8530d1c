"""What the format's own package refuses is refused, and what it reads is read alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mend_jax.weights.errors import WeightsError
from mend_jax.weights.safetensors_file import map_safetensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensors = {name: np.arange(6, dtype=np.float32) + i for i, name in enumerate("abc")}
    save_file(tensors, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def write(path: Path, change) -> None:
    """Replaces the header by what `change` makes of it: an object, or a text."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = change(json.loads(raw[8:end]))
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[end:])


def entry(name: str, **changes):
    return lambda header: header | {name: header[name] | changes}


def without(name: str):
    return lambda header: {k: v for k, v in header.items() if k != name}


def twice(header) -> str:
    text = json.dumps(header)
    return text[:-1] + ', "a": ' + json.dumps(header["a"]) + "}"


WRONG = {
    "overlap": entry("b", data_offsets=[0, 24]),
    "shifted": entry("b", data_offsets=[25, 49]),
    "hole in the middle": without("b"),
    "hole at the start": without("a"),
    "left over": without("c"),
    "past the end": entry("c", data_offsets=[48, 76]),
    "backwards": entry("c", data_offsets=[72, 48]),
    "negative": entry("c", data_offsets=[-24, 0]),
    "three offsets": entry("a", data_offsets=[0, 24, 24]),
    "no whole numbers": entry("a", data_offsets=[0.0, 24.0]),
    "text as a shape": entry("a", shape="6"),
    "negative shape": entry("a", shape=[-2, -3]),
    "truth as a shape": entry("a", shape=[6, True]),
    "huge": entry("a", shape=[2**63, 2**63]),
    "unknown dtype": entry("a", dtype="F31"),
    "wider dtype": entry("a", dtype="F64"),
    "no dtype": lambda header: header | {"a": {"shape": [6], "data_offsets": [0, 24]}},
    "metadata of another type": lambda header: header | {"__metadata__": {"a": 1}},
    "a list": lambda header: [header],
    "one name twice": twice,
    "deep": lambda header: "[" * 100_000,
    "many digits": lambda header: json.dumps(header).replace("24", "2" * 5000),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
def test_a_header_that_cannot_be_true(path: Path, change):
    write(path, change)
    with pytest.raises(WeightsError, match=r"x.safetensors is cut short or not a safetensors"):
        map_safetensors(path)


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
def test_the_package_refuses_it_too(path: Path, change):
    """So that nothing is refused here that others read; but for what they cannot tell."""
    write(path, change)
    try:
        with safe_open(path, "np") as file:
            read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, OverflowError):
        return
    assert change is twice and set(read) == set("abc")


def test_tensors_in_any_order_and_without_values(path: Path):
    write(path, lambda h: dict(reversed(h.items())) | {"none": h["a"] | {
        "shape": [0, 4], "data_offsets": [24, 24]}})  # fmt: skip
    found = map_safetensors(path)
    assert found["none"].shape == (0, 4) and len(found["none"].data) == 0
    assert found["b"].data.view(np.float32).tolist() == [1, 2, 3, 4, 5, 6]
