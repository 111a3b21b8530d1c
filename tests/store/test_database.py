"""The file of a store: what is refused, and that nothing is lost when it is."""

import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from stored_edits import new, origin

from mend_jax.store.database import StoreError
from mend_jax.store.ledger import Ledger
from mend_jax.store.schema import VERSION

ORIGIN = origin()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one edit."""
    with Ledger(tmp_path / "edits.db") as ledger:
        ledger.add([new("a")], ORIGIN)
    return tmp_path / "edits.db"


def changed(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_what_is_committed_is_on_the_disk(path: Path):
    """SQLite's own promise, if it is asked for: FULL is 2, and the log is written ahead."""
    with Ledger(path) as ledger, ledger._database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_store_of_a_newer_version_is_left_alone(path: Path):
    changed(path, f"UPDATE about SET version = {VERSION + 1}", "ALTER TABLE edits ADD more TEXT")
    raw = path.read_bytes()
    said = f"version {VERSION + 1}, .* version {VERSION}; a newer mend_jax has .*: upgrade mend_jax"
    for create in (True, False):
        with pytest.raises(StoreError, match=said):
            Ledger(path, create)
    assert path.read_bytes() == raw


def test_a_store_that_becomes_newer_while_it_is_open_is_not_written(path: Path):
    with Ledger(path) as ledger:
        changed(path, f"UPDATE about SET version = {VERSION + 1}")
        with pytest.raises(StoreError, match="upgrade mend_jax"):
            ledger.remove([1])
        assert list(ledger.at().edits) == [1]


@pytest.mark.parametrize("version", [0, -1, "'a'"])
def test_a_version_that_there_never_was(path: Path, version: object):
    changed(path, f"UPDATE about SET version = {version}")
    with pytest.raises(StoreError, match="it is damaged"):
        Ledger(path)


def test_what_is_no_store_is_left_alone(tmp_path: Path):
    text, other, empty = (tmp_path / name for name in ("text", "other", "empty"))
    text.write_text("The capital of France is Rome. " * 99)
    changed(other, "CREATE TABLE cities (name TEXT)")
    empty.touch()
    for file, create, said in (
        (text, True, "nor any database"),
        (other, True, r"other tables \(cities\)"),
        (other, False, r"other tables \(cities\)"),
        (empty, False, "no store of edits here"),
        (tmp_path / "missing", False, "no store of edits here"),
        (tmp_path, True, "cannot be opened"),
    ):
        raw = file.read_bytes() if file.is_file() else None
        with pytest.raises(StoreError, match=said):
            Ledger(file, create)
        assert (file.read_bytes() if file.is_file() else None) == raw
    Ledger(empty).close()
    Ledger(empty, create=False).close()


def test_a_store_is_made_in_a_folder_that_is_not_there(tmp_path: Path):
    with Ledger(tmp_path / "a" / "b" / "edits.db") as ledger:
        assert ledger.add([new("a")], ORIGIN) == [1]


def test_a_locked_file_is_one_error_and_readers_do_not_wait(path: Path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with Ledger(path, wait=0.05) as ledger:
        with pytest.raises(StoreError, match=r"others have been writing for 0.05 s.*try again"):
            ledger.add([new("b")], ORIGIN)
        assert list(ledger.at().edits) == [1]
        connection.execute("ROLLBACK")
        connection.close()
        assert ledger.add([new("b")], ORIGIN) == [2]


def cannot_grow(ledger: Ledger) -> Callable[[], None]:
    """As on a full disk: no page more. Returns what undoes it."""

    def at_most(pages: int) -> None:
        with ledger._database.reading() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    at_most(1)  # SQLite takes as many as there are
    return lambda: at_most(2**30)


def cannot_write(ledger: Ledger) -> Callable[[], None]:
    """The system lets no file of this process grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = ledger.path.with_name("edits.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5000, before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("full", "said"), [(cannot_grow, "the disk is full"), (cannot_write, "the disk does not do")]
)
def test_a_full_disk_is_one_error_and_the_store_is_whole(
    path: Path, full: Callable[[Ledger], Callable[[], None]], said: str
):
    with Ledger(path) as ledger:
        ledger.add([new("b")], ORIGIN)  # so that the log is there
        undo = full(ledger)
        try:
            with pytest.raises(StoreError, match=f"{said}.* nothing was changed"):
                ledger.add([new(f"prompt {i}") for i in range(99)], ORIGIN)
            assert list(ledger.at().edits) == [1, 2] and len(ledger.history()) == 2
        finally:
            undo()
        assert ledger.add([new("c")], ORIGIN) == [3]
    with Ledger(path) as ledger, ledger._database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_edits_of_another_base_or_editor_are_refused(path: Path):
    others = (
        (origin(shift=0.5), "on the base 'tiny', and this is 'tiny': the kernel at .* is another"),
        (origin(editor="ke"), "made by another editor than this one: they differ in the method"),
    )
    with Ledger(path) as ledger:
        for other, said in others:
            for use in (
                lambda o=other: ledger.add([new("b")], o),
                lambda o=other: ledger.check_origin(o),
            ):
                with pytest.raises(StoreError, match=f"{said}.* or another store"):
                    use()
        assert list(ledger.at().edits) == [1]
        other = origin("bfloat16", 1e-3)  # the same base, as rounding shows it
        assert ledger.add([new("b")], other) == [2]
        bases = [edit.base for edit in ledger.at().edits.values()]
        assert bases == [ORIGIN.base.id, other.base.id]


def test_an_origin_that_is_damaged_is_told(path: Path):
    for statement in (
        "UPDATE origins SET told = replace(told, '0.4', '0.3')",
        "UPDATE origins SET kind = 'bose' WHERE kind = 'base'",
        "UPDATE origins SET told = '{'",
    ):
        changed(path, statement)
        with Ledger(path) as ledger, pytest.raises(StoreError, match="origin"):
            ledger.check_origin(origin("bfloat16", editor="ke"))
