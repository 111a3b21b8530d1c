"""The arrays of an editor by name (`phi/1/576x1536/both/0/U`), read back and checked."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mend_jax.editors.base import EditorState
from mend_jax.editors.enn import names_of


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


def named_arrays(state: EditorState) -> dict[str, np.ndarray]:
    """All arrays of the state by name."""
    return {name: np.asarray(leaf) for name, leaf in names_of(state).items()}


def read_arrays(path: Path, shapes: PyTree) -> EditorState:
    """The state of these shapes, from a safetensors file.

    Raises:
      EditorError: no such file; it is damaged; arrays are missing or mis-shaped (all of them
        named).
    """
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
