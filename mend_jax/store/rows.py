"""An edit as a row: its words, and its arrays as safetensors bytes, under one checksum.

    {site}/u, {site}/delta    float16[rows, d_in], [rows, d_out]
    keys/subject, keys/relation, target

The arrays are those of a `ScopedEdit`; its target is kept without what pads it. Rows that were
written in float32, as they once were, stay so in the file, and are rounded when they are read.
"""

from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mend_jax.editors.scoped import ScopedEdit
from mend_jax.factors import Factors, rounded
from mend_jax.files import checksum, json_checksum
from mend_jax.scopes.active import NONE
from mend_jax.scopes.network import Keys
from mend_jax.store.database import StoreError


class Words(NamedTuple):
    """What an edit says. subject, note: "" where nobody told; separator: as of a `Record`."""

    prompt: str
    target: str
    subject: str = ""
    separator: str | None = None
    note: str = ""


class NewEdit(NamedTuple):
    """An edit to be added; replaces: numbers of held edits that give way to it."""

    words: Words
    kept: ScopedEdit
    replaces: tuple[int, ...] = ()


class StoredEdit(NamedTuple):
    """An edit of a store, without its arrays. time: when it was added, UTC. base, editor: the
    fingerprints of what it was made on and by."""

    id: int
    time: str
    words: Words
    base: str
    editor: str


class Event(NamedTuple):
    """Something that happened to an edit; by: the edit that one gave way to."""

    id: int
    time: str
    kind: str
    edit: int
    by: int | None


class Damaged(NamedTuple):
    """In place of arrays that cannot be used: why."""

    why: str


def check_words(words: Words) -> None:
    """Raises StoreError for an edit without a prompt or a target."""
    for name in ("prompt", "target"):
        if not getattr(words, name).strip():
            raise StoreError(f"an edit needs a {name} that is not empty: {words}")


def to_bytes(kept: ScopedEdit) -> bytes:
    """Its arrays as safetensors."""
    arrays: dict[str, Any] = {
        f"{site}/{name}": part
        for site, factors in kept.rows.items()
        for name, part in factors._asdict().items()
    }
    arrays |= {f"keys/{name}": part for name, part in kept.keys._asdict().items()}
    target = np.asarray(kept.target)
    arrays["target"] = target[target != NONE]
    return save({name: np.asarray(x, order="C") for name, x in arrays.items()})


def from_bytes(raw: bytes) -> ScopedEdit:
    """The edit, in NumPy's arrays.

    Raises:
      StoreError: these bytes are no edit.
    """
    try:
        arrays: dict[str, Any] = load(raw)
        keys = Keys(*(arrays.pop(f"keys/{name}") for name in Keys._fields))
        target = arrays.pop("target")
        sites = sorted({name.rpartition("/")[0] for name in arrays})
        rows = {s: Factors(*(arrays.pop(f"{s}/{x}") for x in Factors._fields)) for s in sites}
        rows = {s: x if x.u.dtype == np.float16 else rounded(x) for s, x in rows.items()}
    except (SafetensorError, KeyError) as error:
        raise StoreError(f"the arrays are not those of an edit ({error})") from None
    return ScopedEdit(rows, keys, target)


def row_checksum(time: str, words: Words, base: str, editor: str, raw: bytes) -> str:
    """Of all that a row says of its edit."""
    told = json_checksum([time, *words, base, editor])
    return checksum(told, raw)

