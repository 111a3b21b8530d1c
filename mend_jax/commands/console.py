"""`mend-jax NAME ...`: the command that the file NAME.py of this folder ends with.

A folder in it holds commands of two words: `mend-jax edits add` is edits/add.py.
"""

import ast
import os
import sys
from collections.abc import Iterator
from importlib import import_module, resources
from importlib.resources.abc import Traversable

from mend_jax.commands.command import Command, main

NOT_COMMANDS = ("__init__", "command", "console", "form", "reference")


def names() -> list[str]:
    """All commands, by name."""
    return sorted(_names(resources.files("mend_jax.commands")))


def _names(folder: Traversable, before: str = "") -> Iterator[str]:
    for file in folder.iterdir():
        name = file.name.removesuffix(".py")
        if file.is_dir():
            yield from _names(file, f"{name} ")
        elif file.name.endswith(".py") and name not in NOT_COMMANDS:
            yield before + name


def module_of(name: str) -> str:
    """The module of a command."""
    return f"mend_jax.commands.{name.replace(' ', '.')}"


def console(*before: str, script: str = "mend-jax ") -> None:
    """What the script `mend-jax` runs.

    Args:
      before: words that stand before those of the command line. script: what is typed before the
        command's name.
    """
    words = [*before, *sys.argv[1:]]
    known = names()
    for length in (2, 1):
        name, rest = " ".join(words[:length]), words[length:]
        if name in known:
            sys.path.insert(0, os.getcwd())  # for editors of one's own, as `python -m` does
            sys.argv = [f"{script}{name}", *rest]
            command: Command = import_module(module_of(name)).COMMAND
            main(command)
            return
    group = f"{words[0]} " if words and any(x.startswith(f"{words[0]} ") for x in known) else ""
    print(overview(group))
    asked = words[1:] if group else words
    if asked and asked[0] not in ("-h", "--help"):
        raise SystemExit(f"error: there is no command {group + asked[0]!r}")


def overview(group: str = "") -> str:
    """Every command with the first line of its description; or those that begin so."""
    usage = f"usage: mend-jax {group}COMMAND [OPTIONS]"
    lines = [f"{usage}; mend-jax {group}COMMAND --help explains its options", ""]
    for name in names():
        if name.startswith(group):
            *folders, file = f"{name}.py".split(" ")
            source = resources.files("mend_jax.commands").joinpath(*folders, file)
            said = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
            lines.append(f"  {name:<20} {said.splitlines()[0]}")
    return "\n".join(lines)
