"""Edits with their scopes, as a folder that acts in a transformers model.

    scoped_edits.py             hooks that need torch, transformers and safetensors only
    scoped_edits.json           where sites and states are in the model, and what the edits say
    scoped_edits.safetensors    rows of every edit at every site, keys, targets, the scope's network

`mend-jax edits benchmark_scoped` measures what they cost transformers.
"""

import json
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from mend_jax.editors.held import Slots
from mend_jax.exports.card import Card, Kind, hub_id, write_card
from mend_jax.exports.folder import ExportError, new_folder
from mend_jax.exports.format import Format, Job
from mend_jax.exports.huggingface import check_floats
from mend_jax.exports.places import blocks_of, places_of
from mend_jax.models.registry import Base
from mend_jax.saved.arrays import named_arrays
from mend_jax.saved.directory import SavedEditor
from mend_jax.weights.export import stored_tensor

VERSION = 2
"""Of the files; `scoped_edits.py` reads this one."""
PROBES = 64
"""Weights of each edited layer by which the base is known again."""
CODE = "scoped_edits.py"

KIND = Kind(
    "transformers",
    "adapter",
    "Edits that act only where they belong, beside the weights of the model",
    'import sys\n\nsys.path.append("FOLDER")\nfrom scoped_edits import attach\n\n'
    'attach(model, "FOLDER")  # model(...) and model.generate(...) as ever',
)


def export_scoped(saved: SavedEditor, held: Slots, out: str | Path, card: Card = Card()) -> None:
    """Writes held edits, their scope's network, and the file that attaches them to transformers.

    Args:
      saved: an editor with a scope. held: its edits (`EditStore.held`). out: a new folder.
      card: its edits, if there are as many, are told by the attached edits.

    Raises:
      ExportError: the folder is not empty; the editor has no scope; no edits; int8 weights.
    """
    if "scoped" not in saved.config:
        raise ExportError("the editor has no scope: export its edits as huggingface, peft or gguf")
    check_floats(saved.base)
    used = np.flatnonzero(np.asarray(held.used))
    if not len(used):
        raise ExportError("no edits are held: there is nothing to export")
    layout = layout_of(saved) | {"edits": _told(card.edits, len(used))}
    arrays = {f"scope/{name}": x for name, x in named_arrays(saved.state.phi.scope).items()}
    kept = jax.tree.map(lambda x: np.asarray(x)[used], held.kept)
    arrays |= {f"rows/{name}": x for name, x in named_arrays(kept.rows).items()}
    arrays |= {f"keys/{name}": x for name, x in named_arrays(kept.keys).items()}
    arrays["target"] = kept.target
    with new_folder(out) as folder:
        whole = {name: np.asarray(x, order="C") for name, x in arrays.items()}
        save_file(whole, folder / "scoped_edits.safetensors", {"format": "pt"})
        text = json.dumps(layout, indent=1, ensure_ascii=False) + "\n"
        (folder / "scoped_edits.json").write_text(text, encoding="utf-8")
        with resources.as_file(resources.files("mend_jax.exports") / CODE) as code:
            shutil.copyfile(code, folder / CODE)
        write_card(folder, saved.base.name, card, KIND)


def _told(edits: Sequence[tuple[str, str]], n: int) -> list[dict[str, str]]:
    """What they say, in the order of their rows; nothing, if that is not known."""
    said = edits if len(edits) == n else [("", "")] * n
    return [{"prompt": prompt, "target": target} for prompt, target in said]


def layout_of(saved: SavedEditor) -> dict[str, Any]:
    """Where states and sites are in transformers' model, and by what it is known again."""
    base, scope = saved.base, saved.config["scoped"]["scope"]
    blocks, places = blocks_of(base), places_of(base, saved.sites)
    return {
        "version": VERSION,
        "base": hub_id(base.name) or Path(base.name).name,
        "stages": [blocks[base.model.stages[stage]] for stage in scope["stages"]],
        "sites": {s: {"module": p.module, "begin": p.begin} for s, p in places.items()},
        "asked_heads": scope.get("asked_heads", 0),
        "width": scope["width"],
        "probes": {place.module: _probe(base, place.tensor) for place in places.values()},
    }


def _probe(base: Base, name: str) -> dict[str, Any]:
    """Some of a tensor's values, and where they stand in it."""
    tensor = stored_tensor(base.params, base.family.expected_weights(base.config)[name])
    flat = tensor.reshape(-1).astype(np.float32)
    at = np.linspace(0, len(flat) - 1, min(PROBES, len(flat))).astype(int)
    return {"shape": list(tensor.shape), "at": at.tolist(), "values": flat[at].tolist()}


def _write(job: Job, out: Path) -> list[str]:
    export_scoped(job.saved, job.held, out, job.card)
    return [f'in Python: sys.path.append("{out}"); from scoped_edits import attach; '
            f'attach(model, "{out}")']  # fmt: skip


FORMAT = Format(True, _write)
