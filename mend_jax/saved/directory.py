"""A trained editor as a directory to share: `editor.safetensors` and `config.json`.

The first holds phi and the running statistics; the second all that is needed to build the editor
again: its name and options, its sites, the base it was made for and that base's fingerprint, and
how it was trained.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from safetensors.numpy import save_file

from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.registry import make_editor
from mend_jax.example import Example, Pair
from mend_jax.files import replace_whole, write_text
from mend_jax.links import Link
from mend_jax.models.fingerprint import difference, fingerprint
from mend_jax.models.memory import Dtype
from mend_jax.models.registry import Base, load
from mend_jax.objectives import Outputs, outputs_of
from mend_jax.parallel import fetch
from mend_jax.saved.arrays import EditorError, check_trained, named_arrays, read_arrays
from mend_jax.sites import SiteError


class SavedEditor(NamedTuple):
    """What `load_editor` returns; `edit = editor.edit(state, base.params, example)`."""

    editor: Editor
    state: EditorState
    base: Base
    sites: tuple[str, ...]
    config: dict[str, Any]


def save_editor(
    directory: str | Path,
    editor: Editor,
    state: EditorState,
    base: Base,
    sites: tuple[str, ...],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Writes the two files; each is replaced whole.

    Args:
      training: how it was trained, kept in config.json for the record.

    Raises:
      EditorError: the editor has no name by which it could be made again.
    """
    if "editor" not in editor.config:
        raise EditorError("an editor without a name (`config['editor']`) cannot be loaded again")
    directory = Path(directory)
    arrays = {k: np.asarray(v, order="C") for k, v in named_arrays(fetch(state)).items()}
    config = {
        "options": {},
        **editor.config,
        "sites": list(sites),
        "base": base.name,
        "fingerprint": fingerprint(base, sites),
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "training": dict(training or {}),
    }
    replace_whole(directory / "editor.safetensors", lambda draft: save_file(arrays, draft))
    write_text(directory / "config.json", json.dumps(config, indent=1) + "\n")


def load_editor(
    directory: str | Path,
    base: Base | None = None,
    links: Mapping[str, Callable[..., Link]] | None = None,
    mesh: Mesh | None = None,
    dtype: Dtype | None = None,
    trust: str = "",
) -> SavedEditor:
    """Loads an editor and, unless it is given, the base it was made for.

    Args:
      directory: what `save_editor` wrote.
      base: a base that is loaded already; it must be the one that the editor was made for.
      links: factories of your own links, by name, if the chain has any.
      mesh, dtype: to load the base with; by default one device, and the dtype that the editor was
        trained with.
      trust: the import path (`package.module:name`) of an editor that is made by code of its own;
        without it, a directory never imports code.

    Raises:
      EditorError: no editor there; a file is damaged; arrays are missing or mis-shaped (all of
        them named); another base or other sites; statistics missing (an untrained editor).
    """
    directory = Path(directory)
    config = read_config(directory)
    if ":" in config["editor"] and trust != config["editor"]:
        raise EditorError(
            f"{directory}: this editor is made by the code at {config['editor']!r}. If you trust "
            f"that code, say so: load_editor(..., trust={config['editor']!r}), --trust in a command"
        )
    if base is None:
        base = load(config["base"], mesh, dtype or config["fingerprint"]["dtype"])
    sites = tuple(config["sites"])
    try:
        editor = build_editor(config, outputs_of(base.model), links)
    except (KeyError, TypeError, ValueError) as error:
        what = f"the editor cannot be built ({type(error).__name__}: {error})"
        raise EditorError(f"{directory / 'config.json'}: {what}") from None
    try:
        wrong = difference(config["fingerprint"], fingerprint(base, sites))
    except SiteError as error:
        wrong = str(error)
    if wrong:
        raise EditorError(
            f"{directory}: this editor was made for the base {config['base']!r}, not for "
            f"{base.name!r}: {wrong}. Load that base, or train an editor for this one"
        )
    inputs = base.model.example_inputs()
    blank = Pair(inputs, np.zeros((1, 1), np.int32))
    shapes = jax.eval_shape(
        lambda params: editor.init(jax.random.key(0), params, Example(blank, blank, blank)),
        base.params,
    )
    state = read_arrays(directory / "editor.safetensors", shapes)
    check_trained(state, str(directory))
    return SavedEditor(editor, state, base, sites, config)


def read_config(directory: Path) -> dict[str, Any]:
    """The editor's config.json.

    Raises:
      EditorError: there is none, or it is not an editor's.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise EditorError(f"{directory}: no editor here (config.json is missing)")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise EditorError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise EditorError(f"{path}: not the config of an editor")
    needed = ("editor", "options", "sites", "base", "fingerprint")
    missing = [k for k in needed if k not in config]
    if missing:
        raise EditorError(f"{path}: not the config of an editor ({', '.join(missing)} missing)")
    known = config["fingerprint"]
    if not isinstance(known, dict) or set(known) != {"dimensions", "dtype", "kernels"}:
        raise EditorError(f"{path}: the base's fingerprint is of an older version: train again")
    return config


def build_editor(
    config: Mapping[str, Any],
    outputs: Outputs,
    links: Mapping[str, Callable[..., Link]] | None = None,
) -> Editor:
    """The editor that a config describes, over the outputs of a model, or of the tail of one.

    Raises:
      ValueError: it is of a kind that is not known here.
    """
    name, options, sites = config["editor"], config["options"], tuple(config["sites"])
    return make_editor(name, options, outputs, sites, config.get("at_once", "joint"), links)
