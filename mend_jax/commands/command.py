"""From a config class to a command: options, presets and `--help` by tyro, errors in one line."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mend_jax.commands.form import filled, form_of
from mend_jax.files import cache_folder
from mend_jax.option_checks import options_of, plain, refusal
from mend_jax.option_types import OptionError
from mend_jax.training.stopping import Stopped, at_once, on_signals


class Preset(NamedTuple):
    """Options that go together, and what they gave: scores, time, machine, seed."""

    options: Mapping[str, Any]
    gave: str


class Command(NamedTuple):
    """What each file of this folder ends with.

    config: a dataclass, whose fields are the options. action(options). description: of `--help`,
    with `mend-jax NAME` for the command itself. presets: by name, for `--preset NAME`. leading:
    options that may be given as the first words, without their names.
    """

    config: type[Any]
    action: Callable[[Any], Any]
    description: str | None
    presets: Mapping[str, Preset] = {}
    leading: tuple[str, ...] = ()


def main(command: Command) -> None:
    """Parses the command line and runs the command on it.

    What a user can mend (options, files, records, weights) ends in one message and exit code 1;
    SIGTERM and SIGINT in one message and exit code 143 or 130.
    """
    called, description = sys.argv[0], command.description or ""
    if not called.startswith(("mend-jax ", "python -m ")):
        called = f"python -m experiments.{Path(called).stem}"
    if not called.startswith("mend-jax "):
        description = description.replace("mend-jax ", "python -m experiments.")
    try:
        options = parse(command, sys.argv[1:], called, description)
        keep_compilations()
        with on_signals(at_once):
            command.action(options)
    except Stopped as stopped:
        if os.environ.get("MEND_JAX_TRACEBACK"):
            raise
        again = f"; to go on: {_again(called)}" if hasattr(options, "resume") else ""
        print(f"{stopped}{again}", file=sys.stderr)
        raise SystemExit(128 + stopped.number) from None
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("MEND_JAX_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        print("(MEND_JAX_TRACEBACK=1 shows where it came from)", file=sys.stderr)
        raise SystemExit(1) from None


def _again(called: str) -> str:
    """The command line that resumes what this one began."""
    given = sys.argv[1:]
    return f"{called} {shlex.join(given if '--resume' in given else [*given, '--resume'])}"


def parse(command: Command, arguments: Sequence[str], called: str, description: str) -> Any:
    """The options of a command line; those given beside a preset, or beside a switch that `brings`
    others where it is turned, win.

    Raises:
      SystemExit: as `--help`, wrong options and `--preset ?` end a command.
      OptionError: an argument is empty. What else is not allowed, `check_options` says, with which
        every action begins.
    """
    import tyro

    _check_not_empty(command.config, arguments)
    name, rest = _preset_of(_named(command.leading, arguments))
    if command.presets:
        known = ", ".join(command.presets)
        description += f"\n\n--preset NAME takes the options of a known result ({known}); options "
        description += "given beside it win. --preset ? tells what each gave."
    if name == "?":
        print(listing(command))
        raise SystemExit(0)
    if name is not None and name not in command.presets:
        known = ", ".join(command.presets) or "none"
        print(f"error: no preset is called {name!r}; known are: {known}", file=sys.stderr)
        raise SystemExit(2)
    given = command.presets[name].options if name else {}

    def asked(defaults: Mapping[str, Any]) -> Any:
        form = form_of(command.config, defaults)
        told = tyro.cli(form, prog=called, description=description, args=rest)
        return filled(command.config, told)

    options = asked(given)
    brought: Mapping[str, Mapping[str, Any]] = getattr(command.config, "brings", {})
    turned = (
        defaults for option, defaults in brought.items()
        if bool(getattr(options, option)) != bool(getattr(command.config, option))
    )  # fmt: skip
    more = {name: value for defaults in turned for name, value in defaults.items()}
    return asked(more | dict(given)) if more else options


def _named(leading: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The arguments with their options' names before the first words that have none."""
    words = list(takewhile(lambda word: not word.startswith("-"), arguments))[: len(leading)]
    named = (f"--{name}={word}" for name, word in zip(leading, words, strict=False))
    return [*named, *arguments[len(words) :]]


def _check_not_empty(config: type[Any], arguments: Sequence[str]) -> None:
    """An empty argument is a slip (`--out "$UNSET"`), which as a path would be this folder; but not
    of a text that may be left away, where it says that there is none."""
    texts = {
        f"--{option.name}"
        for option in options_of(config)
        if plain(option.hint) is str and option.field.default is None
        if not refusal(option.hint, "")
    }
    for before, argument in zip(("", *arguments), arguments, strict=False):
        option, equals, value = argument.partition("=")
        if {option, before} & texts:
            continue
        if option.startswith("--") and equals and not value.strip():
            raise OptionError(f"{option} is empty: leave it away for its default")
        if not argument.strip():
            what = before if before.startswith("--") else "an argument"
            raise OptionError(f"{what} is empty: leave it away for its default")


def listing(command: Command) -> str:
    """Every preset: its name, what it gave, its options."""
    if not command.presets:
        return "this command has no presets"
    parts = []
    for name, preset in command.presets.items():
        given = ", ".join(_spelled(preset.options))
        parts.append(f"{name}\n  gave: {preset.gave}\n  options: {given}")
    return "\n\n".join(parts)


def _spelled(options: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Options as they are typed; of a group in a field of its own, those that are not default."""
    for key, value in options.items():
        name = before + key.replace("_", "-")
        if dataclasses.is_dataclass(value):
            usual: Any = type(value)
            changed = {k: v for k, v in vars(value).items() if v != getattr(usual(), k)}
            yield from _spelled(changed, before if key == "own" else f"{name}.")
        else:
            yield f"--{name} {value}"


def _preset_of(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The name after `--preset`, and the other arguments."""
    rest, name = [], None
    waiting = iter(arguments)
    for argument in waiting:
        option, equals, value = argument.partition("=")
        if option == "--preset":
            name = value if equals else next(waiting, "?")
        else:
            rest.append(argument)
    return name, rest


def keep_compilations() -> None:
    """Keeps compiled programs between runs, in `$MEND_JAX_CACHE` or ~/.cache/mend_jax.

    Unless JAX was told where (`$JAX_COMPILATION_CACHE_DIR`).
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
