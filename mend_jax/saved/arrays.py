"""The arrays of an editor by name (`phi/1/576x1536/both/0/U`), read back and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from mend_jax.editors.base import EditorState
from mend_jax.editors.enn import names_of
from mend_jax.files import array_checksum

HALF = {np.dtype(np.float32): np.dtype(np.float16)}
"""What an array may be stored in to save room."""
LARGE = 10_000
"""Elements of an array that is worth it."""


class EditorError(ValueError):
    """A saved editor that cannot be used: damaged, untrained, or made for another base."""


def check_trained(state: EditorState, name: str) -> None:
    """Raises EditorError if statistics have seen fewer than two rows or are not finite."""
    arrays = named_arrays(state)
    least = {"rows": 2, "updates": 1}  # of `normalize` and of `discriminant`
    if any(np.any(v < least.get(k.rpartition("/")[2], -np.inf)) for k, v in arrays.items()):
        raise EditorError(f"{name}: this editor is untrained (no statistics): train it first")
    wrong = [k for k, v in arrays.items() if not np.all(np.isfinite(v))]
    if wrong:
        raise EditorError(f"{name}: values that are not finite in {', '.join(wrong[:5])}")


def named_arrays(state: PyTree) -> dict[str, np.ndarray]:
    """All arrays of an editor's state, or of what it is part of, by name."""
    return {name: np.asarray(leaf) for name, leaf in names_of(state).items()}


def halved(array: np.ndarray) -> np.ndarray:
    """In half of the bytes, if it is a large one.

    Raises:
      EditorError: a value is too large for that.
    """
    if array.size < LARGE or array.dtype not in HALF:
        return array
    found = array.astype(HALF[array.dtype])
    if not np.all(np.isfinite(found)):
        raise EditorError("a value is too large for float16: keep the editor in float32")
    return found


def read_arrays(path: Path, shapes: PyTree, promised: Mapping[str, Any]) -> EditorState:
    """The state of these shapes, from a safetensors file.

    Args:
      promised: the editor's config: `shapes` and, unless it is to be taken as it is, `checksums`.

    Raises:
      EditorError: no such file; it is damaged; arrays are missing, mis-shaped or of no use here
        (all of them named).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise EditorError(f"{path}: missing")
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise EditorError(f"{path}: not a whole safetensors file ({error})") from None
    known = promised.get("checksums")
    problems = []
    leaves = []
    for place, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name = jax.tree_util.keystr(place, simple=True, separator="/")
        array = arrays.pop(name, None)
        if array is None:
            problems.append(f"{name} is missing")
        elif array.shape != leaf.shape:
            problems.append(f"{name} has shape {array.shape}, expected {leaf.shape}")
        elif array.dtype not in (leaf.dtype, HALF.get(leaf.dtype)):
            problems.append(f"{name} is of {array.dtype}, expected {leaf.dtype}")
        elif list(array.shape) != promised["shapes"].get(name):
            problems.append(f"{name} has shape {array.shape}, not the one in config.json")
        elif known is not None and array_checksum(array) != known.get(name):
            problems.append(f"{name} has another checksum than when it was saved")
        else:
            leaves.append(jax.numpy.asarray(array, leaf.dtype))
    problems += [f"{name} belongs to no part of this editor" for name in arrays]
    if problems:
        raise EditorError(f"{path}: {len(problems)} arrays do not fit: {'; '.join(problems[:20])}")
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)
