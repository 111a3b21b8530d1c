"""A trained editor as a directory to share: `editor.safetensors` and `config.json`.

The first holds phi and the running statistics; the second all that is needed to build the editor
again: its name and options, its sites, the base it was made for and that base's fingerprint, and
how it was trained. The config holds checksums of all arrays, and one of itself: what was damaged,
or changed by hand, is refused unless `force` is said.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from jax.sharding import Mesh

from mend_jax.editors.base import Editor, EditorState
from mend_jax.files import array_checksum, json_checksum, replace_whole, write_text
from mend_jax.links import Link
from mend_jax.models.fingerprint import difference, fingerprint, has_tensors, other_bytes
from mend_jax.models.memory import Dtype
from mend_jax.models.registry import Base, load
from mend_jax.parallel import fetch
from mend_jax.saved.arrays import EditorError, check_trained, halved, named_arrays, read_arrays
from mend_jax.saved.building import build_editor, outputs_over, state_shapes
from mend_jax.saved.config import read_config
from mend_jax.saved.place import find_editor
from mend_jax.sites import SiteError


class SavedEditor(NamedTuple):
    """What `load_editor` returns; `edit = editor.edit(state, base.params, example)`.

    origin: where it was loaded from: its directory or, on the hub, user/name@commit.
    """

    editor: Editor
    state: EditorState
    base: Base
    sites: tuple[str, ...]
    config: dict[str, Any]
    origin: str = ""


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
    write_editor(directory, SavedEditor(editor, state, base, sites, dict(training or {})))


def write_editor(directory: str | Path, saved: SavedEditor, half: bool = False) -> None:
    """As `save_editor`.

    Args:
      saved: its config is how it was trained.
      half: store large arrays in float16; they are float32 again once they are loaded.

    Raises:
      EditorError: also, a value is too large for `half`.
    """
    editor, state, base, sites, training, _ = saved
    if "editor" not in editor.config:
        raise EditorError("an editor without a name (`config['editor']`) cannot be loaded again")
    directory = Path(directory)
    arrays = {k: np.asarray(v, order="C") for k, v in named_arrays(fetch(state)).items()}
    arrays = {k: halved(v) if half else v for k, v in arrays.items()}
    config = {
        "options": {},
        **editor.config,
        "sites": list(sites),
        "base": base.name,
        "fingerprint": fingerprint(base, sites),
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "checksums": {name: array_checksum(array) for name, array in arrays.items()},
        "training": training,
        **({"ends_turns": True} if base.chat.ends else {}),
    }
    config = json.loads(json.dumps(config))  # as it will be read
    config["checksum"] = json_checksum(config)
    from safetensors.numpy import save_file

    replace_whole(directory / "editor.safetensors", lambda draft: save_file(arrays, draft))
    write_text(directory / "config.json", json.dumps(config, indent=1) + "\n")


class Opening(TypedDict, total=False):
    """How an editor is opened.

    mesh, dtype: to load the base with; by default one device, and the dtype that the editor was
      trained with.
    trust: the import path (`package.module:name`) of an editor that is made by code of its own;
      without it, a directory never imports code.
    force: take what was changed by hand, since its checksums were made, with a warning.
    """

    mesh: Mesh | None
    dtype: Dtype | None
    trust: str
    force: bool


def load_editor(
    directory: str | Path,
    base: Base | str | None = None,
    links: Mapping[str, Callable[..., Link]] | None = None,
    **how: Unpack[Opening],
) -> SavedEditor:
    """Loads an editor and, unless it is given, the base it was made for.

    Args:
      directory: what `save_editor` wrote; or the name of an editor that comes with the package, or
        is on the hub: user/name, or user/name@revision (`saved.place`).
      base: a base that is loaded already, or the name of one to load; it must be the one that the
        editor was made for. Of one of which only the tail was loaded, the editor is one over the
        tail: examples hold what the trunk puts out.
      links: factories of your own links, by name, if the chain has any.
      how: `mesh`, `dtype`, `trust` and `force`, as `Opening` says.

    Raises:
      EditorError: no editor there, or the hub has none; a file is damaged or was changed; arrays
        are missing, mis-shaped or of no use (all of them named); another base, also in tensors that
        are not edited, or other sites; statistics missing (an untrained editor).
    """
    (directory, origin), force = find_editor(directory), how.get("force", False)
    config = read_config(directory, force)
    if ":" in config["editor"] and how.get("trust") != config["editor"]:
        raise EditorError(
            f"{directory}: this editor is made by the code at {config['editor']!r}. If you trust "
            f"that code, say so: load_editor(..., trust={config['editor']!r}), --trust in a command"
        )
    if not isinstance(base, Base):
        dtype = how.get("dtype") or config["fingerprint"]["dtype"]
        base = load(base or config["base"], how.get("mesh"), dtype)
    sites = tuple(config["sites"])
    base = base._replace(chat=base.chat._replace(ends=config.get("ends_turns", False)))
    fields: dict[str, Any] = {"alike": True} if hasattr(base.model, "alike") else {}
    if "scoped" in config:
        fields |= {"keep": tuple(config["scoped"]["scope"]["stages"])}
    base = base._replace(model=base.model.clone(**fields))
    check_base(directory, config, base, force)
    editor = _sound(directory, lambda: build_editor(config, outputs_over(base, sites), links))
    shapes = _sound(directory, partial(state_shapes, editor, config, base, links))
    promised = {"shapes": config["shapes"]} if force else config
    state = read_arrays(directory / "editor.safetensors", shapes, promised)
    check_trained(state, str(directory))
    return SavedEditor(editor, state, base, sites, config, origin)


def _sound(directory: Path, make: Callable[[], Any]) -> Any:
    """What `make` makes of the editor's config; its error names the file."""
    try:
        return make()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"the editor cannot be built ({type(error).__name__}: {error})"
        raise EditorError(f"{directory / 'config.json'}: {what}") from None


def check_base(directory: Path, config: Mapping[str, Any], base: Base, force: bool) -> None:
    """Refuses a base that the editor in a directory was not made for.

    What only the checksums of its tensors tell is a warning with `force`; so is that there are none
    to compare.

    Raises:
      EditorError: other dimensions, sites, kernels, or bytes.
    """
    known = config["fingerprint"]
    try:
        found = fingerprint(base, tuple(config["sites"]))
        wrong = difference(known, found)
    except SiteError as error:
        found, wrong = {}, str(error)
    whose = f"{directory}: this editor was made for the base {config['base']!r}"
    if wrong:
        raise EditorError(
            f"{whose}, not for {base.name!r}: {wrong}. Load that base, or train an editor for this "
            "one"
        )
    others = other_bytes(known, found)
    if others and not force:
        raise EditorError(
            f"{whose}, and {base.name!r} is another, or damaged: of its tensors and tokenizer, "
            f"{others}. Load that base; if it was changed on purpose, say so: load_editor(..., "
            "force=True), --force in a command"
        )
    if others:
        warnings.warn(f"{whose}; of {base.name!r}, {others}", stacklevel=3)
    if has_tensors(known) and not has_tensors(found):
        warnings.warn(
            f"{whose}; whether {base.name!r} is that one in all its tensors was not looked at, "
            "only its kernels at the sites: it was not read from files, or by several processes "
            "(`load(..., checksums=True)` reads all in each)",
            stacklevel=3,
        )
