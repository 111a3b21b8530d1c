"""docs/commands.md, made from the commands themselves: `python -m mend_jax.commands.reference`."""

import dataclasses
import textwrap
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mend_jax.commands.command import Command
from mend_jax.commands.console import module_of, names
from mend_jax.commands.form import docstrings, explained
from mend_jax.option_checks import options_of, plain
from mend_jax.runs.options import TrainConfig

WORDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: ""}


def reference(experiments: Path) -> str:
    """The whole page; `experiments` is the checkout's folder, for the paper's runs."""
    parts = [
        "# Commands",
        "Made by `python -m mend_jax.commands.reference > docs/commands.md`; a test compares.",
        "`mend-jax NAME` is the installed script, `python -m experiments.NAME` the same from a "
        "checkout; the runs of the paper are in the checkout only. Presets are options of a known "
        "result: `--preset NAME`, and options given beside it win.",
        "## mend-jax",
    ]
    for name in names():
        parts.append(section(f"mend-jax {name}", import_module(module_of(name))))
    parts.append("## python -m experiments")
    for file in sorted(experiments.glob("train_*.py")):
        name = f"experiments.{file.stem}"
        parts.append(section(f"python -m {name}", import_module(name)))
    return "\n\n".join(parts) + "\n"


def section(title: str, module: Any) -> str:
    """One command: what it is, its presets, its options."""
    command: Command = module.COMMAND
    said = textwrap.dedent(command.description or "").strip()
    parts = [f"### {title}", f"```text\n{said}\n```"]
    if command.presets:
        rows = [f"| `{name}` | {preset.gave} |" for name, preset in command.presets.items()]
        parts.append("\n".join(["| preset | gave |", "|---|---|", *rows]))
    rows = list(options(command.config))
    if command.config is not TrainConfig and issubclass(command.config, TrainConfig):
        common = set(options(TrainConfig))
        rows = [row for row in rows if row not in common]
        parts.append("The options of `mend-jax train`, and these, or these with other defaults:")
    parts.append("\n".join(["| option | | default | |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def options(config: type[Any]) -> Iterator[str]:
    """A row of the table for every option of a config class."""
    said: dict[type[Any], Mapping[str, str]] = {}
    for option in options_of(config):
        owner = option.owner
        if owner not in said:
            said[owner] = docstrings(owner)
        field, kind = option.field, plain(option.hint)
        if field.default is not dataclasses.MISSING:
            default = str(field.default)
        else:
            made = field.default_factory
            default = "required" if made is dataclasses.MISSING else str(made())
        text = explained(said[owner].get(field.name, ""), option.hint)
        words = (text, _words(kind), default or '""')
        text, kind_words, shown = (" ".join(x.split()).replace("|", "\\|") for x in words)
        yield f"| `--{option.name}` | {kind_words} | `{shown}` | {text} |"


def _words(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return f"{_words(plain(typing.get_args(kind)[0]))}, may be repeated"
    return WORDS[kind]


if __name__ == "__main__":
    print(reference(Path("experiments")), end="")
