"""Tensors that a checkpoint holds and the model does not use: known to be spare, or refused.

Scales beside quantised weights, biases that config.json denies, a head that is not the one it is
said to be tied to: a model without them is another model.
"""

import re
from collections.abc import Mapping

import numpy as np

from mend_jax.models.family import Family
from mend_jax.weights import Weights, WeightsError
from mend_jax.weights.names import spellings

_MOST_LISTED = 8
_ROWS = 4096  # compared at once


def check_spare(weights: Weights, used: Mapping[str, str], family: Family) -> None:
    """Refuses tensors that would be lost.

    Args:
      used: {the model's name of a tensor: its name in the file}, from `fitting_names`.

    Raises:
      WeightsError: there are some; or a copy of a tensor differs from it.
    """
    taken = set(used.values())
    copies = {
        spelling: used.get(original)
        for name, original in family.copies.items()
        if name not in used
        for spelling in spellings(name)
    }
    lost = []
    for name in weights.names:
        if name in taken or re.fullmatch("|".join(family.spare) or "(?!)", name):
            continue
        original = copies.get(name)
        if original is None:
            lost.append(name)
        elif not _equal(weights, name, original):
            raise WeightsError(
                f"{weights.origin}: {name} is not {original}, but the model is said to have one "
                "table for both (tie_word_embeddings in config.json). If it has two, say "
                '"tie_word_embeddings": false there'
            )
    if lost:
        more = len(lost) - _MOST_LISTED
        raise WeightsError(
            f"{weights.origin} holds {len(lost)} tensors for which the model has no place: "
            f"{', '.join(lost[:_MOST_LISTED])}{f' and {more} more' * (more > 0)}. Without them it "
            "would be another model: is config.json that of this checkpoint? (Weights that were "
            "quantised have scales beside them: load the model as it was before.)"
        )


def _equal(weights: Weights, name: str, original: str) -> bool:
    """Byte for byte, some rows at a time."""
    if weights.shapes[name] != weights.shapes[original]:
        return False
    a, b = weights.read(name), weights.read(original)
    return a.dtype == b.dtype and all(
        np.array_equal(_bytes(a[i : i + _ROWS]), _bytes(b[i : i + _ROWS]))
        for i in range(0, len(a), _ROWS)
    )


def _bytes(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(np.uint8)
