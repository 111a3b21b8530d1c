"""What is done to the rows of a store, each within a transaction that its caller commits."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from mend_jax.store.database import StoreError
from mend_jax.store.origin import Origin
from mend_jax.store.rows import NewEdit, StoredEdit, Words, row_checksum
from mend_jax.store.schema import EDITS, EVENTS

TOLD = [EDITS.c[name] for name in ("id", "time", *Words._fields, "base", "editor")]
"""What is read of an edit where its arrays are not wanted."""


class ContradictionError(StoreError):
    """An edit whose prompt is held already, with another target."""


def now() -> str:
    """UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def last_event(connection: Connection) -> int:
    """Its number; 0 before the first."""
    return int(connection.execute(select(func.coalesce(func.max(EVENTS.c.id), 0))).scalar_one())


def note(connection: Connection, time: str, kind: str, edit: int, by: int | None = None) -> None:
    """Adds an event to the history."""
    connection.execute(insert(EVENTS).values(time=time, kind=kind, edit=edit, by=by))


def add_edit(
    connection: Connection, time: str, origin: Origin, edit: NewEdit, arrays: bytes
) -> int:
    """Adds an edit, and returns its number; or the number of the same edit, if it is held.

    Raises:
      ContradictionError: its prompt is held with another target.
      StoreError: one that is to give way is not held.
    """
    for number in edit.replaces:
        turn(connection, number, held=False)
    there = find_held(connection, edit.words.prompt)
    if there is not None and differ(there.words, edit.words):
        raise ContradictionError(contradiction(edit.words, there))
    if there is None:
        base, editor = origin.base.id, origin.editor.id
        row = {
            **edit.words._asdict(), "time": time, "base": base, "editor": editor, "held": True,
            "checksum": row_checksum(time, edit.words, base, editor, arrays), "arrays": arrays,
        }  # fmt: skip
        made: Any = connection.execute(insert(EDITS).values(row)).inserted_primary_key
        number = int(made[0])
    else:
        number = there.id
    for other in edit.replaces:
        note(connection, time, "replaced", other, number)
    if there is None:
        note(connection, time, "added", number)
    return number


def turn(connection: Connection, number: int, held: bool) -> None:
    """Holds an edit that is not held, or the other way.

    Raises:
      StoreError: it is so already; there is no such edit; its prompt is held by another.
    """
    row = connection.execute(select(*TOLD, EDITS.c.held).where(EDITS.c.id == number)).first()
    if row is None:
        raise StoreError(f"there is no edit {number}")
    if row.held == held:
        raise StoreError(f"edit {number} is {'held already' if held else 'not held'}")
    if held and (other := find_held(connection, row.prompt)) is not None:
        raise StoreError(
            f"the prompt of edit {number} is held by edit {other.id} ({other.words.prompt!r} -> "
            f"{other.words.target!r}): remove that one first"
        )
    connection.execute(update(EDITS).where(EDITS.c.id == number).values(held=held))


def find_held(connection: Connection, prompt: str) -> StoredEdit | None:
    """The edit that is held of a prompt."""
    wanted = select(*TOLD).where(EDITS.c.prompt == prompt, EDITS.c.held)
    row = connection.execute(wanted).first()
    return None if row is None else stored(row)


def stored(row: Any) -> StoredEdit:
    """A row of `TOLD`."""
    words = Words(*(getattr(row, name) for name in Words._fields))
    return StoredEdit(row.id, row.time, words, row.base, row.editor)


def differ(a: Words, b: Words) -> bool:
    """Whether their targets do."""
    return a.target.strip() != b.target.strip()


def contradiction(words: Words, held: StoredEdit) -> str:
    """That an edit says otherwise than one that is held."""
    return (
        f"{words.prompt!r} -> {words.target!r} contradicts edit {held.id}, {held.words.prompt!r} "
        f"-> {held.words.target!r}"
    )
