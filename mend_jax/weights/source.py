"""One view of a pre-trained model on disk, whatever its format, and the way into a Flax tree.

`Weights` lists the tensors under their Hugging Face names, in the Hugging Face orientation
(`[d_out, d_in]` for a linear layer), and reads them one at a time. `load_params` compares that list
with what the model expects, all of it, before the first tensor is read; then at most one tensor is
in host memory at a time: each is on its device before the next is read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from mend_jax.weights.chat_template import ChatTemplate
from mend_jax.weights.errors import WeightsError
from mend_jax.weights.names import spellings

Placer: TypeAlias = Callable[[tuple[str, ...], np.ndarray], Mapping[str, jax.Array]]
"""Puts one array, that goes to a path, on its devices (see `load_params`)."""

_MOST_LISTED = 20
_LAYERS = (
    "num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers", "encoder_layers",
    "decoder_layers",
)  # fmt: skip
"""How a config.json says the number of its blocks."""


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
        checksum: of one tensor as it is stored, with its dtype and shape; reads all of it.
        tokenizer_checksum: of what the tokenizer was made of; empty without one.
        chat: how a chat is written out as one text.
        files: that hold the tensors.
        release: gives back the memory of the file's pages, after one of its tensors was read; what
            is still in use of them is read again.
    """

    config: dict
    names: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    tokenizer: Any
    origin: str
    checksum: Callable[[str], str] = lambda name: ""
    tokenizer_checksum: str = ""
    chat: ChatTemplate = ChatTemplate()
    files: tuple[Path, ...] = ()
    release: Callable[[str], None] = lambda name: None


class Expected(NamedTuple):
    """Where one tensor goes: its path and shape in the Flax tree, and whether to transpose it.

    parts: of a tensor that is several in one, whose last axis (here, not in the file) holds theirs
      one after another: where each goes. Its own path is empty then.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    transpose: bool
    parts: tuple["Expected", ...] = ()

    def under(self, prefix: tuple[str, ...]) -> "Expected":
        """The same further down."""
        if self.parts:
            return self._replace(parts=tuple(part.under(prefix) for part in self.parts))
        return self._replace(path=(*prefix, *self.path))

    @property
    def leaves(self) -> tuple["Expected", ...]:
        """What it becomes in the Flax tree."""
        return self.parts or (self,)


def load_params(
    weights: Weights,
    expected: Mapping[str, Expected],
    place: Placer,
    told: Callable[[str, str], object] = lambda name, found: None,
) -> dict:
    """Read the expected tensors into a nested dict, the `params` of a Flax model.

    Args:
        weights: where to read. Tensors that are not expected stay unread.
        expected: `{name in the file: Expected}`.
        place: puts one array, already in Flax orientation, on its device(s) in its dtype. It
            returns {last name of the path: array}, and what else belongs beside it.
        told: called after each tensor with its expected name and its name in the file, while its
            bytes are still at hand.

    Returns:
        The nested dict, with what `place` returned at each `Expected.path`.

    Raises:
        WeightsError: a tensor is missing or has another shape. One error names all of them.
    """
    found = fitting_names(weights, expected)
    params: dict = {}
    for name, one in expected.items():
        array, at = weights.read(found[name]), 0
        array = array.T if one.transpose else array
        for path, shape, *_ in one.leaves:
            node = params
            for key in path[:-1]:
                node = node.setdefault(key, {})
            part = array[..., at : at + shape[-1]] if one.parts else array
            node |= jax.block_until_ready(place(path, part))
            at += shape[-1]
        told(name, found[name])
        weights.release(found[name])
    return params


def check_layers(config: Mapping[str, Any], most: int, origin: str) -> None:
    """Refuses a config with more blocks than there can be, before a table of them is made.

    Args:
        most: how many tensors there are; each block has some.

    Raises:
        WeightsError: it says more.
    """
    for key in _LAYERS:
        if isinstance(count := config.get(key), int) and count > most:
            raise WeightsError(
                f"{origin}: its config says {key} {count:,}, which is more than the {most:,} "
                "tensors that there are. Is this the config of another model, or damaged?"
            )


def fitting_names(weights: Weights, expected: Mapping[str, Expected]) -> dict[str, str]:
    """{expected name: name in the file}.

    Raises:
        WeightsError: as `load_params`.
    """
    names: dict[str, str] = {}
    missing, misshaped = [], []
    for name, (_, shape, transpose, _) in expected.items():
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
        others = [name for name in weights.names if name not in set(names.values())]
        if missing and others:
            more = f" and {len(others) - 4} more" if len(others) > 4 else ""
            lines.append(f"there are others: {', '.join(others[:4])}{more}")
        raise WeightsError(
            f"{weights.origin} does not fit the model: {len(missing)} of {len(expected)} tensors "
            f"are missing and {len(misshaped)} have another shape. Is this the checkpoint of "
            "another model, or was its config changed?\n  " + "\n  ".join(lines)
        )
    return names
