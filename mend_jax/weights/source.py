"""One view of a pre-trained model on disk, whatever its format, and the way into a Flax tree.

`Weights` lists the tensors under their Hugging Face names, in the Hugging Face orientation
(`[d_out, d_in]` for a linear layer), and reads them one at a time. `load_params` compares that list
with what the model expects, all of it, before the first tensor is read; then at most one tensor is
in host memory at a time: each is on its device before the next is read.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

_MOST_LISTED = 20


class WeightsError(ValueError):
    """The weights cannot be used: says what is wrong, in which file, and what to do."""


class Weights(NamedTuple):
    """A model on disk.

    Attributes:
        config: the keys of a Hugging Face `config.json`; under `generation_config`, where there is
            one, those of the `generation_config.json` beside it.
        names: the tensors there are.
        read: reads one tensor, in the float dtype it is stored in. Its memory may be the file's
            own pages, read-only: copy what has to outlive the file.
        shapes: the shape of each tensor, known without reading it.
        tokenizer: a `tokenizers.Tokenizer`; None if none is stored with the weights.
        origin: the path, for messages.
    """

    config: dict
    names: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    tokenizer: Any
    origin: str


class Expected(NamedTuple):
    """Where one tensor goes: its path and shape in the Flax tree, and whether to transpose it."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    transpose: bool


def load_params(
    weights: Weights,
    expected: Mapping[str, Expected],
    place: Callable[[tuple[str, ...], np.ndarray], Mapping[str, jax.Array]],
) -> dict:
    """Read the expected tensors into a nested dict, the `params` of a Flax model.

    Args:
        weights: where to read. Tensors that are not expected stay unread.
        expected: `{name in the file: Expected}`.
        place: puts one array, already in Flax orientation, on its device(s) in its dtype. It
            returns {last name of the path: array}, and what else belongs beside it.

    Returns:
        The nested dict, with what `place` returned at each `Expected.path`.

    Raises:
        WeightsError: a tensor is missing or has another shape. One error names all of them.
    """
    found = _check(weights, expected)
    params: dict = {}
    for name, (path, _, transpose) in expected.items():
        array = weights.read(found[name])
        node = params
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node |= jax.block_until_ready(place(path, array.T if transpose else array))
    return params


def spellings(name: str) -> tuple[str, ...]:
    """Other names a tensor has in older files: without the model's own prefix; gamma and beta."""
    bare = name.partition(".")[2]
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )
    return tuple(dict.fromkeys((name, bare, old, old.partition(".")[2])))


def _check(weights: Weights, expected: Mapping[str, Expected]) -> dict[str, str]:
    """{expected name: name in the file}."""
    names: dict[str, str] = {}
    missing, misshaped = [], []
    for name, (_, shape, transpose) in expected.items():
        wanted = tuple(reversed(shape)) if transpose else tuple(shape)
        there = [spelling for spelling in spellings(name) if spelling in weights.shapes]
        if not there:
            missing.append(f"{name}: missing, expected shape {wanted}")
            continue
        names[name], found = there[0], weights.shapes[there[0]]
        if tuple(found) != wanted:
            misshaped.append(f"{there[0]}: has shape {tuple(found)}, expected {wanted}")
    if problems := missing + misshaped:
        lines = problems[:_MOST_LISTED]
        if len(problems) > _MOST_LISTED:
            lines.append(f"... and {len(problems) - _MOST_LISTED} more")
        raise WeightsError(
            f"{weights.origin} does not fit the model: {len(missing)} of {len(expected)} tensors "
            f"are missing and {len(misshaped)} have another shape. Is this the checkpoint of "
            "another model, or was its config changed?\n  " + "\n  ".join(lines)
        )
    return names
