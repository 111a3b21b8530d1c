"""Subjects that an editor was trained on: counted if that can be told, and no reason to refuse."""

from pathlib import Path

import pytest
from tiny_run import Finished, some_records

from mend_jax.data.records import of_some_subjects, write_records
from mend_jax.runs.evaluation import trained_on
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


def told_of(finished: Finished, path: Path | None) -> SavedEditor:
    saved = finished.run.saved
    told = {"train": None if path is None else str(path)}
    return saved._replace(config=saved.config | {"training": told})


def test_known_subjects_are_counted(finished: Finished, tmp_path: Path):
    write_records(tmp_path / "old.jsonl", some_records(0, 4))
    known = trained_on(told_of(finished, tmp_path / "old.jsonl"))
    assert known is not None and [record.subject for record in known] == [
        f"Person {i}" for i in range(4)
    ]
    assert trained_on(told_of(finished, None)) == []


def test_only_the_share_that_was_trained_on_is_known(finished: Finished, tmp_path: Path):
    write_records(tmp_path / "old.jsonl", some_records(0, 40))
    saved = told_of(finished, tmp_path / "old.jsonl")
    saved.config["training"]["train_share"] = 0.5
    known = trained_on(saved)
    assert known is not None and 10 < len(known) < 30
    assert known == of_some_subjects(some_records(0, 40), 0.5)


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
        assert trained_on(told_of(finished, file)) is None
