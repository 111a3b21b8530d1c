"""The rows of a store: edits, and what happened to them, event by event.

Everything that is done is one transaction. What is held after an event follows from the events up
to it: an edit is held if its last one has added or restored it.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, select

from mend_jax.editors.scoped import ScopedEdit
from mend_jax.store.changes import (
    TOLD,
    add_edit,
    find_held,
    last_event,
    note,
    now,
    stored,
    turn,
)
from mend_jax.store.database import WAIT, Database, StoreError
from mend_jax.store.origin import Origin, check_origin, tell_origin
from mend_jax.store.rows import (
    Damaged,
    Event,
    NewEdit,
    StoredEdit,
    check_words,
    from_bytes,
    row_checksum,
    to_bytes,
)
from mend_jax.store.schema import EDITS, EVENTS, HOLDS
from mend_jax.store.slots import SIDE_BY_SIDE


class OvertakenError(StoreError):
    """Something has happened to the store since the caller looked."""


class Moment(NamedTuple):
    """What is held after an event: edits by their numbers, in order.

    damaged: numbers of edits whose row is lost, or does not agree with their events on whether they
    are held now.
    """

    event: int
    edits: dict[int, StoredEdit]
    damaged: tuple[int, ...] = ()


class Ledger:
    """The rows of a store in a file. Use as a context manager, or close it.

    Args:
      create: make the file if there is none. wait: seconds to wait for other writers.

    Raises (and so does all that reads or writes):
      StoreError: no store there, or of a newer version; a damaged or locked file; a full disk.
        What was to be done is not done then, not even in part.
    """

    def __init__(self, path: str | Path, create: bool = True, wait: float = WAIT) -> None:
        self.path = Path(path)
        self._database = Database(self.path, create, wait)

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()

    def add(self, edits: Sequence[NewEdit], origin: Origin, seen: int | None = None) -> list[int]:
        """Adds edits and returns their numbers, once all of them are on the disk.

        An edit whose prompt is held with the same target is there already: its number is returned,
        so a batch can be given again by those who do not know what became of it.

        Args:
          seen: the event up to which the caller knows the store.

        Raises:
          StoreError: edits of another base or editor; one without a prompt or a target; one that
            is to give way is not held.
          ContradictionError: a prompt is held already, with another target.
          OvertakenError: there were events after the one that was `seen`.
        """
        time = now()
        for edit in edits:
            check_words(edit.words)
        raw = [to_bytes(edit.kept) for edit in edits]  # before others have to wait
        with self._database.writing() as connection:
            if seen is not None and (last := last_event(connection)) != seen:
                raise OvertakenError(f"event {last} is new, after event {seen}")
            check_origin(connection, origin)
            tell_origin(connection, origin)
            add = partial(add_edit, connection, time, origin)
            return [add(edit, arrays) for edit, arrays in zip(edits, raw, strict=True)]

    def remove(self, numbers: Sequence[int]) -> None:
        """Removes edits: what is held no longer has them, the history does.

        Raises:
          StoreError: one of them is not held; then none is removed.
        """
        self._all(numbers, "removed", held=False)

    def restore(self, numbers: Sequence[int]) -> None:
        """Brings back edits that were removed or have given way, bit for bit.

        Raises:
          StoreError: one of them is held, or its prompt is, by another; then none is restored.
        """
        self._all(numbers, "restored", held=True)

    def _all(self, numbers: Sequence[int], kind: str, held: bool) -> None:
        time = now()
        with self._database.writing() as connection:
            for number in numbers:
                turn(connection, number, held)
                note(connection, time, kind, number)

    def at(self, event: int | None = None) -> Moment:
        """What is held now, or was after an event (0: before the first).

        Raises:
          StoreError: there was no such event.
        """
        with self._database.reading() as connection:
            last = last_event(connection)
            event = last if event is None else event
            if not 0 <= event <= last:
                raise StoreError(f"there is no event {event}; the last is {last}")
            newest = (
                select(func.max(EVENTS.c.id).label("id"))
                .where(EVENTS.c.id <= event)
                .group_by(EVENTS.c.edit)
                .subquery()
            )
            held = (
                select(EVENTS.c.edit)
                .join(newest, newest.c.id == EVENTS.c.id)
                .where(EVENTS.c.kind.in_(HOLDS))
            )
            found = _by_number(connection, select(*TOLD).where(EDITS.c.id.in_(held)))
            damaged = set(connection.execute(held).scalars()) - found.keys()
            if event == last:
                rows = connection.execute(select(EDITS.c.id).where(EDITS.c.held)).scalars()
                damaged |= found.keys() ^ set(rows)
            return Moment(event, found, tuple(sorted(damaged)))

    def edits(self, numbers: Sequence[int] | None = None) -> dict[int, StoredEdit]:
        """Edits, held or not, by their numbers; without `numbers`, all there ever were."""
        wanted = select(*TOLD)
        if numbers is not None:
            wanted = wanted.where(EDITS.c.id.in_(numbers))
        with self._database.reading() as connection:
            return _by_number(connection, wanted)

    def find(self, prompt: str) -> StoredEdit | None:
        """The edit that is held of a prompt."""
        with self._database.reading() as connection:
            return find_held(connection, prompt)

    def history(self, after: int = 0) -> list[Event]:
        """All events after one of them, in their order."""
        later = select(EVENTS).where(EVENTS.c.id > after).order_by(EVENTS.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(later).all()
        return [Event(row.id, row.time, row.kind, row.edit, row.by) for row in rows]

    def arrays(self, numbers: Sequence[int]) -> Iterator[tuple[int, ScopedEdit | Damaged]]:
        """The arrays of edits, each with its number; what is damaged is named, and the others come
        all the same."""
        for i in range(0, len(numbers), SIDE_BY_SIDE):
            part = numbers[i : i + SIDE_BY_SIDE]
            try:
                yield from self._arrays(part)
            except StoreError:  # of the file itself: which of them is it?
                for number in part:
                    try:
                        yield from self._arrays([number])
                    except StoreError as error:
                        yield number, Damaged(str(error))

    def _arrays(self, numbers: Sequence[int]) -> list[tuple[int, ScopedEdit | Damaged]]:
        wanted = select(*TOLD, EDITS.c.checksum, EDITS.c.arrays).where(EDITS.c.id.in_(numbers))
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(EDITS.c.id))
            return [(row.id, _whole(row)) for row in rows]

    def check_origin(self, origin: Origin) -> None:
        """Raises StoreError if the store has edits of another base, or by another editor."""
        with self._database.reading() as connection:
            check_origin(connection, origin)


def _by_number(connection: Connection, wanted: Select[Any]) -> dict[int, StoredEdit]:
    return {row.id: stored(row) for row in connection.execute(wanted.order_by(EDITS.c.id))}


def _whole(row: Any) -> ScopedEdit | Damaged:
    edit = stored(row)
    try:
        found = row_checksum(edit.time, edit.words, edit.base, edit.editor, row.arrays)
        whole = found == row.checksum
    except TypeError:  # a value of another type
        whole = False
    if not whole:
        return Damaged("the row has another checksum than when it was written")
    try:
        return from_bytes(row.arrays)
    except StoreError as error:
        return Damaged(str(error))
