"""From a config class to a command: options and `--help` by tyro, errors in one line."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

Config = TypeVar("Config")


def main(config: type[Config], action: Callable[[Config], Any], description: str | None) -> None:
    """Parses the command line into `config` and runs `action` on it.

    What a user can mend (options, files, records, weights) ends in one message and exit code 1.
    """
    import tyro

    options = tyro.cli(config, description=description)
    keep_compilations()
    try:
        action(options)
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
