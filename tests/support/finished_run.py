"""A pytest plugin: the tiny base with its records, and one finished run, for the whole session.

Test modules that need them say `pytest_plugins = ["finished_run"]`.
"""

import pytest
from tiny_run import Files, Finished, options, save_folder, some_records

from mend_jax.data.records import write_records
from mend_jax.runs.run import run


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tiny")
    write_records(folder / "train.jsonl", some_records(0, 24))
    write_records(folder / "validation.jsonl", some_records(22, 10))
    model = save_folder(folder / "model")
    return Files(model, folder / "train.jsonl", folder / "validation.jsonl")


@pytest.fixture(scope="session")
def finished(tiny_files: Files, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    config = options(tiny_files, tmp_path_factory.mktemp("run") / "out")
    said: list[str] = []
    return Finished(tiny_files, config, run(config, said.append), said)
