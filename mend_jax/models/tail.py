"""The tail of a model without its trunk: which weights it reads, and which stay in their files.

What some stages read is known without any weights, by tracing them on shapes:

    stages -> {path: shape} -> the tensors of the file that hold them
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from jaxtyping import PyTree

from mend_jax.models.stages import Staged, can_be_cached, split, traced
from mend_jax.sites import Sites
from mend_jax.weights import Expected, Weights, WeightsError, load_params
from mend_jax.weights.known import known_checksums, remember_checksums
from mend_jax.weights.source import Placer

Parts: TypeAlias = Literal["all", "tail"]
"""Of a base, that are held: all, or the edited blocks and what follows them."""
Reader: TypeAlias = Callable[[PyTree], PyTree]
"""Reads the parameters at the paths of a tree (of arrays or shapes), and those stored with them."""


def check_alone(parts: str, mesh: Mesh | None) -> None:
    """Raises ValueError for parts that are not known, and for a tail on several devices."""
    if parts not in ("all", "tail"):
        raise ValueError(f"parts {parts!r}: a base is loaded in parts 'all' or 'tail'")
    if parts == "tail" and (mesh is not None or jax.process_count() > 1):
        raise ValueError(
            "the tail of a base is loaded on one device, by one process: on a mesh, load all of it"
        )


def shapes_of_tail(model: nn.Module, sites: Sites, name: str) -> PyTree:
    """Shapes of the parameters that the tail reads, if the model is cut at the sites.

    Args:
      name: of the model, for messages.

    Raises:
      ValueError: there is no trunk that could be run on texts alone.
      SiteError: as `split`.
    """
    trunk, tail = split(model, sites)
    if trunk is None or not isinstance(model, Staged):
        raise ValueError(f"{name} has no stages below the edited layers: load all of it")
    if not can_be_cached(trunk):
        raise ValueError(
            f"{name}: the stages below the edited layers reach into the decoder, and their states "
            "are not those of a text alone: load all of it, or edit the encoder, too"
        )
    _, carry = traced(trunk, model.example_inputs())
    return traced(tail, carry)[0]


def holding(expected: Mapping[str, Expected], shapes: PyTree) -> dict[str, Expected]:
    """The expected tensors of which something goes to one of the paths of a tree."""
    paths = flatten_dict(shapes).keys()
    return {k: v for k, v in expected.items() if any(leaf.path in paths for leaf in v.leaves)}


def checksums_of_all(
    weights: Weights, used: Mapping[str, str], found: Mapping[str, str]
) -> dict[str, str]:
    """The checksums of all tensors: the remembered ones, if the files are as they were.

    Args:
      used: {expected name: name in the file}. found: those of some, made just now.
    """
    own = {name: found[name] for name in used if name in found}
    known = known_checksums(weights.files)
    if known.keys() == used.keys() and own.items() <= known.items():
        return known
    sums = {}
    for name, stored in used.items():
        sums[name] = own[name] if name in own else weights.checksum(stored)
        weights.release(stored)
    remember_checksums(weights.files, sums)
    return sums


def reader(
    weights: Weights, expected: Mapping[str, Expected], place: Placer, sums: Mapping[str, str]
) -> Reader:
    """`read(shapes)`: raises WeightsError if a tensor is not the one with this checksum."""

    def same(name: str, stored: str) -> None:
        if weights.checksum(stored) != sums[name]:
            raise WeightsError(
                f"{weights.origin}: {stored} is another tensor than before, although its file says "
                "that it was not changed: is it damaged, or is it being written? Try again, or "
                "download it again"
            )

    return lambda shapes: load_params(weights, holding(expected, shapes), place, same)
