"""From a config class to a command: options and `--help` by tyro, errors in one line."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax


class Command(NamedTuple):
    """What each file of this folder ends with.

    config: a dataclass, whose fields are the options. action(options). description: of `--help`,
    with `mend-jax NAME` for the command itself.
    """

    config: type[Any]
    action: Callable[[Any], Any]
    description: str | None


def main(command: Command) -> None:
    """Parses the command line and runs the command on it.

    What a user can mend (options, files, records, weights) ends in one message and exit code 1.
    """
    import tyro

    called, description = sys.argv[0], command.description or ""
    if not called.startswith("mend-jax"):
        called = f"python -m experiments.{Path(called).stem}"
        description = description.replace("mend-jax ", "python -m experiments.")
    options = tyro.cli(command.config, prog=called, description=description)
    keep_compilations()
    try:
        command.action(options)
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("MEND_JAX_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        print("(MEND_JAX_TRACEBACK=1 shows where it came from)", file=sys.stderr)
        raise SystemExit(1) from None


def keep_compilations() -> None:
    """Keeps compiled programs between runs, in `$MEND_JAX_CACHE` or ~/.cache/mend_jax."""
    cache = Path(os.environ.get("MEND_JAX_CACHE", "~/.cache/mend_jax")).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
