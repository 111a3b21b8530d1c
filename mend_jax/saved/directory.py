"""A trained editor as a directory to share: `editor.safetensors` and `config.json`.

The first holds phi and the running statistics under names such as
`phi/1/576x1536/both/0/U`; the second all that is needed to build the editor again: its chain, its
sites, the base it was made for and that base's fingerprint, and how it was trained.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mend_jax.editors.base import Editor, EditorState, no_edit
from mend_jax.editors.cache import cache
from mend_jax.editors.enn import enn, names_of
from mend_jax.editors.finetune import finetune, finetune_together, pair_from_lists
from mend_jax.editors.gradient import gradient_editor
from mend_jax.editors.ke import ke
from mend_jax.editors.solved import solved
from mend_jax.editors.summed import summed
from mend_jax.example import Example, Pair
from mend_jax.files import replace_whole, write_text
from mend_jax.intercept import SiteError, Sites
from mend_jax.links import Link, from_config
from mend_jax.models.fingerprint import difference, fingerprint
from mend_jax.models.memory import Dtype
from mend_jax.models.registry import Base, load
from mend_jax.objectives import Outputs, outputs_of
from mend_jax.parallel import fetch

OTHERS: dict[str, Callable[..., Editor]] = {
    "finetune_together": finetune_together,
    "enn": enn,
    "ke": ke,
    "cache": cache,
    "none": lambda outputs, at: no_edit(),
}
"""Kinds of editors that are built of (outputs, sites, **options)."""


class EditorError(ValueError):
    """A saved editor that cannot be used: damaged, untrained, or made for another base."""


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
    """
    directory = Path(directory)
    arrays = {k: np.asarray(v, order="C") for k, v in named_arrays(fetch(state)).items()}
    config = {
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
) -> SavedEditor:
    """Loads an editor and, unless it is given, the base it was made for.

    Args:
      directory: what `save_editor` wrote.
      base: a base that is loaded already; it must be the one that the editor was made for.
      links: factories of your own links, by name, if the chain has any.
      mesh, dtype: to load the base with; by default one device, and the dtype that the editor was
        trained with.

    Raises:
      EditorError: no editor there; a file is damaged; arrays are missing or mis-shaped (all of
        them named); another base or other sites; statistics missing (an untrained editor).
    """
    directory = Path(directory)
    config = read_config(directory)
    if base is None:
        base = load(config["base"], mesh, dtype or config["fingerprint"]["dtype"])
    sites = tuple(config["sites"])
    try:
        editor = build_editor(config, outputs_of(base.model), links)
    except (KeyError, TypeError, ValueError) as error:
        what = f"the chain cannot be built ({type(error).__name__}: {error})"
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
    state = _read_arrays(directory / "editor.safetensors", shapes)
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
    needed = ["editor", "chain", "sites", "base", "fingerprint"]
    if config.get("editor", "gradient") != "gradient":
        needed.remove("chain")
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
    at, kind = tuple(config["sites"]), config["editor"]
    options = dict(config.get("options", {}))
    if kind == "gradient":
        editor = gradient_editor(outputs.loss, at, from_config(config["chain"], links or {}))
    elif kind == "finetune":
        locality = options.pop("locality", None)
        pairs = None if locality is None else pair_from_lists(locality)
        editor = finetune(outputs, at, **options, locality=pairs)
    elif kind in OTHERS:
        editor = OTHERS[kind](outputs, at, **options)
    else:
        known = ", ".join(("gradient", "finetune", *OTHERS))
        raise ValueError(f"the editor {kind!r} is not known; known are {known}")
    return made_at_once(editor, config.get("at_once", "joint"), outputs, at)


def made_at_once(editor: Editor, how: str, outputs: Outputs, at: Sites) -> Editor:
    """The editor with its way to make several edits at once: joint, summed or solved."""
    if how == "solved":
        return solved(editor, outputs.loss, at)
    return summed(editor) if how == "summed" else editor


def editor_name(config: Mapping[str, Any]) -> str:
    """What the editor is called in results, by its config."""
    if config["editor"] == "finetune":
        return "ft_kl" if "locality" in config["options"] else "ft"
    names: dict[str, str] = {"gradient": "mend", "finetune_together": "ft_breadth"}
    return names.get(config["editor"], config["editor"])


def check_trained(state: EditorState, name: str) -> None:
    """Raises EditorError if statistics have seen fewer than two rows or are not finite."""
    arrays = named_arrays(state)
    least = {"rows": 2, "updates": 1}  # of `normalize` and of `discriminant`
    if any(np.any(v < least.get(k.rpartition("/")[2], -np.inf)) for k, v in arrays.items()):
        raise EditorError(f"{name}: this editor is untrained (no statistics): train it first")
    wrong = [k for k, v in arrays.items() if not np.all(np.isfinite(v))]
    if wrong:
        raise EditorError(f"{name}: values that are not finite in {', '.join(wrong[:5])}")


def named_arrays(state: EditorState) -> dict[str, np.ndarray]:
    """All arrays of the state by name."""
    return {name: np.asarray(leaf) for name, leaf in names_of(state).items()}


def _read_arrays(path: Path, shapes: PyTree) -> EditorState:
    if not path.is_file():
        raise EditorError(f"{path}: missing")
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise EditorError(f"{path}: not a whole safetensors file ({error})") from None
    problems = []
    leaves = []
    for place, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name = jax.tree_util.keystr(place, simple=True, separator="/")
        array = arrays.get(name)
        if array is None:
            problems.append(f"{name} is missing")
        elif array.shape != leaf.shape:
            problems.append(f"{name} has shape {array.shape}, expected {leaf.shape}")
        else:
            leaves.append(jax.numpy.asarray(array))
    if problems:
        raise EditorError(f"{path}: {len(problems)} arrays do not fit: {'; '.join(problems[:20])}")
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)
