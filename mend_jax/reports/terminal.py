"""Tables for a terminal, and the same as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def print_rows(rows: Sequence[Row], columns: Sequence[str], as_json: bool = False) -> None:
    """Prints rows: these columns as a table, long texts wrapped; or all there is, as a JSON list.

    What a column lacks (None) is left blank.
    """
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        cells = ("" if row.get(name) is None else str(row[name]) for name in columns)
        table.add_row(*(Text(cell) for cell in cells))  # as it is written: no markup
    Console().print(table)
