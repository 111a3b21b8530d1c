"""What a model family is: the five things that each family's file ends with, and its tables."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from mend_jax.parallel import Partition
from mend_jax.weights import Expected


class Family(NamedTuple):
    """A family of models.

    dimensions(config.json as a dict, names of the tensors) -> the family's frozen dataclass of
      dimensions; raises ValueError for a variant that is not implemented.
    model(dimensions, dtype=...) -> the staged Linen module.
    expected_weights(dimensions) -> {name of a Hugging Face tensor: where it goes}.
    default_sites(dimensions) -> regular expression of the layers edited by default.
    partition: how the parameters are spread over the mesh axis "model".
    """

    dimensions: Callable[[Mapping[str, Any], Collection[str]], Any]
    model: Callable[..., Any]
    expected_weights: Callable[[Any], dict[str, Expected]]
    default_sites: Callable[[Any], str]
    partition: Partition


def last_blocks(n: int, count: int) -> str:
    """Regular expression for the numbers of the last `count` of n blocks."""
    return "|".join(str(i) for i in range(max(n - count, 0), n))


def expect_linear(
    theirs: str, ours: str, shape: tuple[int, int], transpose: bool = True, bias: bool = True
) -> dict[str, Expected]:
    """Kernel [d_in, d_out] and bias of one linear layer.

    Args:
      theirs: name in the file, without ".weight". ours: path here, with slashes.
      transpose: the file has [d_out, d_in].
    """
    path = tuple(ours.split("/"))
    table = {f"{theirs}.weight": Expected((*path, "kernel"), shape, transpose)}
    if bias:
        table[f"{theirs}.bias"] = Expected((*path, "bias"), shape[1:], False)
    return table


def expect_norm(theirs: str, ours: str, d: int, bias: bool = True) -> dict[str, Expected]:
    """Scale and bias of one norm."""
    path = tuple(ours.split("/"))
    table = {f"{theirs}.weight": Expected((*path, "scale"), (d,), False)}
    if bias:
        table[f"{theirs}.bias"] = Expected((*path, "bias"), (d,), False)
    return table
