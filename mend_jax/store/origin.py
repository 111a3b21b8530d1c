"""What edits were made on, and by: a base and an editor, whose edits alone are held together.

The base is told by its fingerprint (`models.fingerprint`), so that it is the same in another dtype
or place; the editor by its method, options and sites, its scope, and the checksum of every trained
array.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from mend_jax.files import array_checksum, json_checksum, parse_json
from mend_jax.models.fingerprint import difference, fingerprint, other_bytes
from mend_jax.parallel import fetch
from mend_jax.saved.arrays import named_arrays
from mend_jax.saved.directory import SavedEditor
from mend_jax.store.database import StoreError
from mend_jax.store.schema import ORIGINS


class Told(NamedTuple):
    """A base or an editor. id: 16 hex digits of the rest. what: JSON."""

    id: str
    what: Mapping[str, Any]


class Origin(NamedTuple):
    """The base and the editor of edits."""

    base: Told
    editor: Told


def told(what: Mapping[str, Any]) -> Told:
    """With its id; as JSON gives it back."""
    plain = json.loads(json.dumps(what))
    return Told(json_checksum(plain), plain)


def origin_of(saved: SavedEditor) -> Origin:
    """The origin of edits that this editor makes.

    Raises:
      StoreError: it has no scope, so that its edits are not held side by side.
    """
    if "scoped" not in saved.config:
        raise StoreError("the editor has no scope: give it one first (mend-jax scope)")
    names = ("editor", "options", "sites", "scoped")
    arrays = named_arrays(fetch(saved.state))
    editor = {name: saved.config.get(name) for name in names}
    editor["arrays"] = json_checksum({name: array_checksum(x) for name, x in arrays.items()})
    base = {"name": saved.base.name, "fingerprint": fingerprint(saved.base, saved.sites)}
    return Origin(told(base), told(editor))


def other_base(known: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """How two bases differ, in words; empty if they do not, whatever they are called."""
    ours, theirs = known["fingerprint"], found["fingerprint"]
    why = difference(ours, theirs) or other_bytes(ours, theirs)
    return f"{known['name']!r}, and this is {found['name']!r}: {why}" if why else ""


def other_editor(known: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """How two editors differ, in words; empty if they do not."""
    words = {
        "editor": "the method", "options": "its options", "sites": "the sites",
        "scoped": "the scope's options", "arrays": "what was trained",
    }  # fmt: skip
    others = [words[name] for name in words if known.get(name) != found.get(name)]
    return f"they differ in {', '.join(others)}" if others else ""


def check_origin(connection: Connection, origin: Origin) -> None:
    """Raises StoreError if the store has edits of another base, or by another editor."""
    compare: dict[str, tuple[Told, Callable[..., str], str]] = {
        "base": (origin.base, other_base, "made on the base "),
        "editor": (origin.editor, other_editor, "made by another editor than this one: "),
    }
    for row in connection.execute(select(ORIGINS)):
        given, other, made = compare.get(row.kind, (None, None, ""))
        if given is not None and given.id == row.id:
            continue
        known = parse_json(row.told, f"origin {row.id} in the store", StoreError)
        if given is None or other is None or json_checksum(known) != row.id:
            raise StoreError(f"what the store tells of the origin {row.id} of its edits is damaged")
        if why := other(known, given.what):
            raise StoreError(
                f"the store's edits were {made}{why}. Give the editor that made them, or another "
                "store"
            )


def tell_origin(connection: Connection, origin: Origin) -> None:
    """Writes down the base and the editor, if they are not there."""
    known = set(connection.execute(select(ORIGINS.c.id)).scalars())
    for kind, it in origin._asdict().items():
        if it.id not in known:
            row = {"id": it.id, "kind": kind, "told": json.dumps(it.what)}
            connection.execute(insert(ORIGINS).values(row))
