"""A command as it is typed, run in this process: what takes long of a child is to start Python."""

import io
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest import mock

from mend_jax.commands.console import console


class Ended(NamedTuple):
    """How a command ended, and all that it printed."""

    code: int
    out: str
    error: str


def typed(name: str, *arguments: object) -> Ended:
    """`python -m experiments.NAME ARGUMENTS`, or `mend-jax ARGUMENTS` where the name is that."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    argv = mock.patch.object(sys, "argv", [name, *map(str, arguments)])
    columns = mock.patch.dict("os.environ", COLUMNS="100")
    with argv, columns, redirect_stdout(out), redirect_stderr(error):
        try:
            if name == "mend-jax":
                console()
            else:
                runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=error)
    return Ended(code, out.getvalue(), error.getvalue())
