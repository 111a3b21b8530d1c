"""Writes a trained editor for others: half the bytes, no paths of this machine, scores beside it.

    mend-jax pack --editor runs/general --out packed

Matrices are stored in float16 and are float32 again once they are loaded. Score what was packed
(`mend-jax evaluate --editor packed`): it is what others get.
"""

import json
from dataclasses import dataclass

from mend_jax.commands.command import Command
from mend_jax.exports.published import results_of, without_paths
from mend_jax.files import write_text
from mend_jax.option_checks import check_options
from mend_jax.option_types import OutFolder
from mend_jax.runs.opening import EditorPlace, OpeningOptions
from mend_jax.runs.run import RESULTS
from mend_jax.saved.directory import load_editor, write_editor
from mend_jax.saved.place import find_editor


@dataclass(frozen=True, kw_only=True)
class Pack(OpeningOptions):
    """Options of the packing."""

    editor: EditorPlace
    """Directory of a trained editor, or its name on the hub (user/name[@revision])."""
    out: OutFolder
    """Directory for it; must be empty or absent."""


def pack(config: Pack) -> None:
    """Loads, rounds, writes, and says how large it is."""
    check_options(config)
    if config.out.exists() and any(config.out.iterdir()):
        raise ValueError(f"{config.out} is not empty: give another --out")
    folder = find_editor(config.editor).folder
    saved = load_editor(folder, dtype=config.dtype, trust=config.trust, force=config.force)
    training = without_paths(saved.config.get("training", {}))
    write_editor(config.out, saved._replace(config=training), half=True)
    if found := results_of(folder):
        write_text(config.out / RESULTS, json.dumps(found, indent=1) + "\n")
    size = sum(file.stat().st_size for file in config.out.iterdir())
    print(f"written to {config.out}: {size / 1e6:.1f} MB")


COMMAND = Command(Pack, pack, __doc__)
