"""Checksums that are remembered hold for the files that they were made of, as these were then."""

import os
from pathlib import Path

import pytest

from mend_jax.weights.known import known_checksums, remember_checksums

SUMS = {"a": "00ff", "b": "1234"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("MEND_JAX_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    for path in paths:
        path.write_bytes(b"weights")
    remember_checksums(paths, SUMS)
    return paths


def test_files_that_were_not_touched(files: list[Path]):
    assert known_checksums(files) == SUMS
    assert known_checksums(files[:1]) == {}


def test_files_that_were(files: list[Path]):
    before = files[1].stat()
    os.utime(files[1], ns=(0, before.st_mtime_ns + 1))
    assert known_checksums(files) == {}
    files[1].write_bytes(b"others")
    os.utime(files[1], ns=(0, before.st_mtime_ns))
    assert known_checksums(files) == {}
    files[1].write_bytes(b"weights")
    os.utime(files[1], ns=(0, before.st_mtime_ns))
    assert known_checksums(files) == SUMS


@pytest.mark.parametrize("damage", ["{", "[]", "null", '{"checksums": {}, "checksum": 3}', "1234"])
def test_a_damaged_note_is_none(files: list[Path], tmp_path: Path, damage: str):
    (note,) = (tmp_path / "cache" / "checksums").iterdir()
    whole = note.read_text()
    note.write_text(whole.replace("1234", "1235") if damage == "1234" else damage)
    assert known_checksums(files) == {}
    remember_checksums(files, SUMS)
    assert note.read_text() == whole
