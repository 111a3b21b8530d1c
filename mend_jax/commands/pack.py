"""Writes a trained editor for others: half the bytes, no paths of this machine, scores beside it.

    mend-jax pack --editor runs/general --out packed

Matrices are stored in float16 and are float32 again once they are loaded. Score what was packed
(`mend-jax evaluate --editor packed`): it is what others get.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mend_jax.commands.command import Command
from mend_jax.files import write_text
from mend_jax.option_types import InputFolder, OutFolder, check_options
from mend_jax.runs.opening import OpeningOptions
from mend_jax.runs.run import RESULTS
from mend_jax.saved.directory import load_editor, write_editor

PATHS = ("train", "validation", "locality", "out")
"""Options of a training that are paths: of these, the last name is kept, as no path of yours."""


@dataclass(frozen=True, kw_only=True)
class Pack(OpeningOptions):
    """Options of the packing."""

    editor: InputFolder
    """Directory of a trained editor."""
    out: OutFolder
    """Directory for it; must be empty or absent."""


def pack(config: Pack) -> None:
    """Loads, rounds, writes, and says how large it is."""
    check_options(config)
    if config.out.exists() and any(config.out.iterdir()):
        raise ValueError(f"{config.out} is not empty: give another --out")
    saved = load_editor(
        config.editor, dtype=config.dtype, trust=config.trust, force=config.force
    )
    training = bare(saved.config.get("training", {}))
    write_editor(config.out, saved._replace(config=training), half=True)
    if (scores := config.editor / RESULTS).is_file():
        found = json.loads(scores.read_text(encoding="utf-8"))
        found["config"] = bare(found.get("config", {}))
        found["dataset"] = re.sub(r"\S*/", "", found.get("dataset", ""))
        write_text(config.out / RESULTS, json.dumps(found, indent=1) + "\n")
    size = sum(file.stat().st_size for file in config.out.iterdir())
    print(f"written to {config.out}: {size / 1e6:.1f} MB")


def bare(options: dict[str, Any]) -> dict[str, Any]:
    """Options without the folders of their paths."""
    return {
        name: f"packed:{Path(value).name}" if name in PATHS and isinstance(value, str) else value
        for name, value in options.items()
    }


COMMAND = Command(Pack, pack, __doc__)
