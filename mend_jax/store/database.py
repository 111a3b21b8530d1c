"""A database file, opened so that what was committed stays: transactions, and errors in words.

SQLite with a write-ahead log: readers see the last commit and wait for nobody, writers wait for one
another. A commit returns when the disk has it (`synchronous=FULL`), so it survives the process that
made it, and a loss of power. What is said here of SQLite is all that a database server would have
to be told otherwise; the tables and queries are SQLAlchemy's.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from mend_jax.store.schema import ABOUT, METADATA, VERSION

WAIT = 30.0
"""Seconds for which a writer waits for others."""
DAMAGED = "the database is damaged here"


class StoreError(ValueError):
    """A store that cannot be opened, read or written, or that refuses what is asked of it."""


class Database:
    """A file with the tables of a store.

    Args:
      create: make a store where there is no file. wait: seconds to wait for other writers.

    Raises:
      StoreError: no store there; of a newer version; no database, or another one.
    """

    def __init__(self, path: Path, create: bool, wait: float = WAIT) -> None:
        self.path, self._wait = path, wait
        new = not path.exists() or path.stat().st_size == 0
        if new and not create:
            raise StoreError(f"{path}: there is no store of edits here")
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = _engine(path, wait, new)
        try:
            self._prepare(create)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the file."""
        self._engine.dispose()

    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction that sees one state of the database, whatever others write."""
        return self._transaction(self._engine)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that nobody else writes beside: all of it is done, or nothing."""
        with self._transaction(self._engine.execution_options(writes=True)) as connection:
            self._check_version(connection)
            yield connection

    @contextlib.contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise StoreError(f"{self.path}: {self._in_words(error)}") from None
        except UnicodeDecodeError:  # SQLite's own message quotes what is damaged
            raise StoreError(f"{self.path}: {DAMAGED}") from None

    def _prepare(self, create: bool) -> None:
        with self.reading() as connection:
            tables = inspect(connection).get_table_names()
            if ABOUT.name in tables:
                self._check_version(connection)
                return
        if tables or not create:
            found = f"a database with other tables ({', '.join(tables)})" if tables else "empty"
            raise StoreError(f"{self.path}: this is no store of edits but {found}")
        with self._transaction(self._engine.execution_options(writes=True)) as connection:
            if not inspect(connection).get_table_names():  # nobody else was faster
                METADATA.create_all(connection)
                connection.execute(insert(ABOUT).values(version=VERSION))

    def _check_version(self, connection: Connection) -> None:
        """The row is locked where a server keeps it, so that events are numbered as they come."""
        version = connection.execute(select(ABOUT.c.version).with_for_update()).scalar()
        if version != VERSION:
            newer = isinstance(version, int) and version > VERSION
            who = "a newer mend_jax has written it" if newer else "it is damaged"
            todo = ": upgrade mend_jax" if newer else ""
            raise StoreError(
                f"{self.path}: the store is of version {version}, and this program knows version "
                f"{VERSION}; {who}{todo}"
            )

    def _in_words(self, error: DBAPIError) -> str:
        name = getattr(error.orig, "sqlite_errorname", "")
        known = {
            "SQLITE_BUSY": f"others have been writing for {self._wait:g} s, so nothing was "
            "changed: try again",
            "SQLITE_FULL": "the disk is full, so nothing was changed: make room, and try again",
            "SQLITE_IOERR": f"the disk does not do what is asked ({name}), so nothing was changed",
            "SQLITE_READONLY": "the file, or its folder, may not be written",
            "SQLITE_CANTOPEN": "the file cannot be opened, or none can be made in its folder",
            "SQLITE_NOTADB": "this is no store of edits, nor any database",
            "SQLITE_CORRUPT": DAMAGED,
        }
        found = (words for start, words in known.items() if name.startswith(start))
        return next(found, f"{error.orig}")


def _engine(path: Path, wait: float, new: bool) -> Engine:
    """SQLAlchemy's engine for an SQLite file, with transactions as SQLite itself has them."""
    where = URL.create("sqlite", database=str(path.absolute()))
    engine = create_engine(where, connect_args={"timeout": wait})

    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # Python begins no transactions by itself
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # checksums tell
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if new:
            connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
