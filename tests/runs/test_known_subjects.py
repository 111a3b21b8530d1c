"""Subjects that an editor was trained on: counted if that can be told, and no reason to refuse."""

from pathlib import Path

import pytest
from tiny_run import Finished, some_records

from mend_jax.data.records import write_records
from mend_jax.runs.evaluation import known_of
from mend_jax.saved.directory import SavedEditor

pytest_plugins = ["finished_run"]

BROKEN = {
    "gone": None,
    "empty": b"",
    "cut short": b'{"prompt": "p", "tar',
    "of another form": b'[{"weights": 3}]',
    "not UTF-8": b"\xff\xfe\x00",
    "a folder": b"/",
}


def trained_on(finished: Finished, path: Path | None) -> SavedEditor:
    saved = finished.run.saved
    told = {"train": None if path is None else str(path)}
    return saved._replace(config=saved.config | {"training": told})


def test_known_subjects_are_counted(finished: Finished, tmp_path: Path):
    write_records(tmp_path / "old.jsonl", some_records(0, 4))
    assert known_of(trained_on(finished, tmp_path / "old.jsonl"), some_records(2, 9)) == 2
    assert known_of(trained_on(finished, None), some_records(2, 9)) == 0


@pytest.mark.parametrize("how", BROKEN)
def test_a_training_file_that_is_broken_by_now_is_a_warning(
    finished: Finished, tmp_path: Path, how: str
):
    file, content = tmp_path / "old.jsonl", BROKEN[how]
    if content == b"/":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"trained on cannot be read any more \(.*is not known"):
        assert known_of(trained_on(finished, file), some_records(2, 9)) is None
