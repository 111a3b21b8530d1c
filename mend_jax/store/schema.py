"""The tables of a store.

    about     the version of all this
    origins   bases and editors, told once: what rows of edits name by a fingerprint
    edits     an edit each: its words, and its arrays as safetensors
    events    what happened, in order; rows are added and never changed

`edits.held` says in one place what the events of an edit come to, so that the database itself sees
to it that no prompt is held twice.
"""

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

VERSION = 1
"""Of the tables below. A program refuses a store whose version it does not know."""

KINDS = ("added", "removed", "restored", "replaced")
"""Of events. A replaced edit gives way to another, which is named beside it."""
HOLDS = ("added", "restored")
"""After one of these, the edit is held."""

METADATA = MetaData()

ABOUT = Table("about", METADATA, Column("version", Integer, nullable=False))

ORIGINS = Table(
    "origins",
    METADATA,
    Column("id", String(16), primary_key=True),  # 16 hex digits of what is told
    Column("kind", String(8), nullable=False),  # base, editor
    Column("told", Text, nullable=False),  # JSON
)

EDITS = Table(
    "edits",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("time", String(32), nullable=False),  # UTC, as ISO 8601 writes it
    Column("prompt", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("separator", Text),
    Column("note", Text, nullable=False),
    Column("base", ForeignKey("origins.id"), nullable=False),
    Column("editor", ForeignKey("origins.id"), nullable=False),
    Column("held", Boolean, nullable=False),
    Column("checksum", String(16), nullable=False),  # of all of the above but `held`, and arrays
    Column("arrays", LargeBinary, nullable=False),
    sqlite_autoincrement=True,  # a number is given once
)

Index(
    "one_held_edit_of_a_prompt",
    EDITS.c.prompt,
    unique=True,
    sqlite_where=text("held"),
    postgresql_where=text("held"),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("time", String(32), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("edit", ForeignKey("edits.id"), nullable=False, index=True),
    Column("by", ForeignKey("edits.id")),  # the edit that one gave way to
    sqlite_autoincrement=True,
)
