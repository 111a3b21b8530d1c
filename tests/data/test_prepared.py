"""A prepared folder gives back what was written, in order or shuffled, and goes on where it was."""

import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mend_jax.data.fields import RecordError
from mend_jax.data.records import Locality, Record, Rephrase
from mend_jax.data.sources.registry import read_records

for package in ("tensorflow_datasets", "grain", "array_record"):
    pytest.importorskip(package)

from mend_jax.data.prepared import (  # noqa: E402
    open_prepared,
    read_prepared,
    record_of,
    shuffled,
    write_prepared,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what is said of a file

RECORDS = [
    Record(f"What is {i}?", "ⅳ", *fields)
    for i, fields in enumerate(
        [
            (),
            (("Tell 1", Rephrase("Tell 2", "two")), (), "été"),
            ((), (Locality("3 is", "three", "near"), Locality("4 is", "four"))),
            ((), (Locality("5 is", "five", "", ""), Locality("6 is", "six")), "", " \n"),
            ((), (Locality("7 is", "seven", "far", " "),), "", ""),
            *[(("again",), (), f"subject {i}") for i in range(18)],
        ]
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("prepared")
    write_prepared(out, RECORDS)
    return out


def test_what_is_written_is_read_as_any_records_are(folder: Path):
    assert read_records(folder) == RECORDS
    assert read_records(folder / "records/1.0.0") == RECORDS
    assert len(list(folder.rglob("*.array_record*"))) == 1


def test_any_record_is_read_alone(folder: Path):
    source = open_prepared(folder)
    assert len(source) == len(RECORDS)
    assert [record_of(source[i]) for i in (7, 2)] == [RECORDS[7], RECORDS[2]]


def test_epochs_hold_every_record_in_fresh_orders_that_the_seed_decides(folder: Path):
    n = len(RECORDS)
    walk = list(islice(shuffled(folder, seed=1), 2 * n))
    assert sorted(walk[:n], key=repr) == sorted(walk[n:], key=repr) == sorted(RECORDS, key=repr)
    assert walk[:n] != walk[n:]
    assert walk == list(islice(shuffled(folder, seed=1), 2 * n))
    assert walk != list(islice(shuffled(folder, seed=2), 2 * n))


def test_a_saved_position_is_gone_on_from(folder: Path):
    walk = shuffled(folder, seed=1)
    list(islice(walk, 30))
    state = walk.get_state()
    wanted = list(islice(walk, 30))
    fresh = shuffled(folder, seed=1)
    fresh.set_state(state)
    assert list(islice(fresh, 30)) == wanted


def test_what_is_no_prepared_folder(tmp_path: Path, folder: Path):
    with pytest.raises(RecordError, match="0 prepared data sets"):
        read_records(tmp_path)
    with pytest.raises(RecordError, match="holds prepared records already"):
        write_prepared(folder, RECORDS)


def test_what_a_killed_preparation_left_is_no_prepared_folder(tmp_path: Path):
    half = tmp_path / "records" / "1.0.0.incompleteABC"
    half.mkdir(parents=True)
    (half / "dataset_info.json").write_text("{}")
    with pytest.raises(RecordError, match="0 prepared data sets"):
        read_records(tmp_path)
    write_prepared(tmp_path, RECORDS)
    assert read_records(tmp_path) == RECORDS and not half.exists()


def test_no_tensorflow(folder: Path):
    code = (
        "import sys; from mend_jax.data.sources.registry import read_records; "
        "assert not {'grain', 'tensorflow_datasets'} & set(sys.modules); "
        f"read_records({str(folder)!r}); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("way", ["flipped", "cut", "emptied", "deleted"])
def test_damage_to_any_file(folder: Path, tmp_path: Path, way: str):
    """A clear error of ours, also where the folder has no checksums; never other records."""
    for file in (path for path in folder.rglob("*") if path.is_file()):
        copy = Path(shutil.copytree(folder, tmp_path / f"{way} {file.name}"))
        damaged = copy / file.relative_to(folder)
        raw = damaged.read_bytes()
        at = len(raw) // 3
        damaged.write_bytes(
            {
                "flipped": raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :],
                "cut": raw[:at],
            }.get(way, b"")
        )
        if way == "deleted":
            damaged.unlink()
        for checks in (True, False):
            if not checks:
                (damaged.parent / "checksums.json").unlink(missing_ok=True)
            try:
                assert read_prepared(copy) == RECORDS
                assert not checks or damaged.name == "checksums.json"
            except (RecordError, OSError) as error:
                assert str(error)
