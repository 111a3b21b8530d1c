"""`mend-jax NAME ...`: the command that the file NAME.py of this folder ends with."""

import ast
import os
import sys
from importlib import import_module, resources

from mend_jax.commands.command import main

NOT_COMMANDS = ("__init__", "command", "console", "form", "reference")


def names() -> list[str]:
    """All commands, by name."""
    files = resources.files("mend_jax.commands").iterdir()
    found = (file.name.removesuffix(".py") for file in files if file.name.endswith(".py"))
    return sorted(name for name in found if name not in NOT_COMMANDS)


def console() -> None:
    """What the script `mend-jax` runs."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in names():
        sys.path.insert(0, os.getcwd())  # for editors of one's own, as `python -m` does
        sys.argv = [f"mend-jax {name}", *sys.argv[2:]]
        main(import_module(f"mend_jax.commands.{name}").COMMAND)
        return
    print(overview())
    if name not in ("-h", "--help"):
        raise SystemExit(f"error: there is no command {name!r}")


def overview() -> str:
    """Every command with the first line of its description."""
    lines = ["usage: mend-jax COMMAND [OPTIONS]; mend-jax COMMAND --help explains its options", ""]
    for name in names():
        file = resources.files("mend_jax.commands").joinpath(f"{name}.py")
        said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:<20} {said.splitlines()[0]}")
    return "\n".join(lines)
