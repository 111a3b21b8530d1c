"""Where edits are kept: rows of a database with an append-only history."""
