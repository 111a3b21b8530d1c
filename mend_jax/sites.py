"""Sites: the names of linear layers whose kernels may be edited, and the checks of such names.

A site is the path of a layer among the modules of a function, `decoder/block_22/mlp/wo`, and of its
kernel among the parameters, with or without Linen's collection `params` around them.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
from flax.core import meta
from jaxtyping import PyTree

from mend_jax.factors import natural

Sites: TypeAlias = str | Sequence[str]
"""A regular expression that site names match in full, or the site names themselves."""


class SiteError(ValueError):
    """A site that does not exist, is no linear layer, or is used in a way that cannot be edited."""


def match_sites(at: Sites, linear: Iterable[str], others: Mapping[str, str]) -> tuple[str, ...]:
    """Resolves `at` among the names of linear layers; `others` maps other modules to their class.

    Raises:
      SiteError: nothing matches (the nearest names are given), or a match is no linear layer.
    """
    linear = list(linear)
    if isinstance(at, str):
        wrong = [name for name in others if re.fullmatch(at, name)]
        sites = [name for name in linear if re.fullmatch(at, name)]
        missing = [] if sites or wrong else [at]
    else:
        wrong = [name for name in at if name in others]
        sites = [name for name in linear if name in set(at)]
        missing = [name for name in at if name not in others and name not in set(sites)]
    if wrong:
        raise SiteError(
            f"{wrong[0]!r} is a {others[wrong[0]]}, not a linear layer (nn.Dense, nnx.Linear): "
            f"change the sites {at!r} so that they match linear layers only"
        )
    if missing and not linear:
        raise SiteError(
            f"no linear layer is called {missing[0]!r}: the function calls none at all. Those of "
            "Linen are seen (flax.linen.Dense), and of Flax NNX those of a module that the "
            "function takes first (nnx.Linear); of other libraries, none"
        )
    if missing:
        near = difflib.get_close_matches(missing[0], linear, n=4, cutoff=0.0)
        raise SiteError(f"no linear layer is called {missing[0]!r}; the nearest names are {near}")
    return tuple(sorted(sites, key=natural))


def check_visited(expected: Iterable[str], visited: set[str]) -> None:
    """Refuses a function that did not call all the layers that it should.

    Raises:
      SiteError: one of the expected sites was not visited.
    """
    missing = sorted(set(expected) - visited)
    if missing and not visited:
        raise SiteError(
            f"the function called none of the {len(missing)} linear layers, such as "
            f"{missing[0]!r}: an edit for another model, a cached trace, or layers that are not "
            "Linen's or Flax NNX's"
        )
    if missing:
        raise SiteError(
            f"the function did not call the linear layer {missing[0]!r} "
            f"({len(missing)} of its sites in all): an edit for another model, or a cached trace"
        )


def kernel_path(params: PyTree, site: str) -> tuple[str, ...] | None:
    """Where the kernel of a site is among the parameters; None if it is not there. The site of a
    lone layer, with no module around it, is the empty name."""
    for root in ((), ("params",)):
        path, tree = (*root, *filter(None, site.split("/")), "kernel"), params
        for name in path:
            tree = tree.get(name) if isinstance(tree, Mapping) else None
        if tree is not None:
            return path
    return None


def check_kernel(params: PyTree, site: str, d_in: int, d_out: int) -> None:
    """Refuses a kernel [d_in, d_out] of another shape; parameters without one pass.

    Raises:
      SiteError: it has.
    """
    path = kernel_path(params, site)
    if path is None:
        return
    shape = tuple(unboxed(at_path(params, path)).shape)
    if shape != (d_in, d_out):
        raise SiteError(
            f"site {site!r} works on {d_in} x {d_out}, but its kernel has shape {shape}: edits "
            "need one two-dimensional kernel per site "
            "(layers stacked by nn.scan or nn.vmap have to be unstacked)"
        )


def check_editable(params: PyTree, site: str, d_in: int, d_out: int) -> tuple[str, ...]:
    """The path of a float kernel [d_in, d_out], into which an edit can be folded.

    Raises:
      SiteError: there is none, or one of another shape, or an int8 one.
    """
    path = kernel_path(params, site)
    if path is None:
        raise SiteError(f"the parameters have no kernel at {site!r}")
    check_kernel(params, site, d_in, d_out)
    dtype = unboxed(at_path(params, path)).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise SiteError(
            f"site {site!r} has an {dtype} kernel, in which an edit would be rounded away: "
            'load the base with dtype="float32" or "bfloat16" to merge into it, or keep the edit '
            "beside it (`edited`)"
        )
    return path


def unboxed(leaf: Any) -> Any:
    """The array of a parameter, which Linen may keep in a box with the names of its axes
    (`nn.with_partitioning`)."""
    if isinstance(leaf, meta.Partitioned):
        return unboxed(leaf.unbox(apply_constraint=False))  # a look must not move it
    return unboxed(leaf.unbox()) if isinstance(leaf, meta.AxisMetadata) else leaf


def reboxed(leaf: Any, array: Any) -> Any:
    """The array in the boxes of the parameter whose place it takes."""
    if isinstance(leaf, meta.AxisMetadata):
        return leaf.replace_boxed(array)
    return array


def at_path(params: PyTree, path: tuple[str, ...]) -> Any:
    """What is there in a tree."""
    for name in path:
        params = params[name]
    return params
