"""What tells a base from others, in whatever dtype it is loaded.

The checksums that `load` made of all its tensors as they are stored, and of its tokenizer, tell it
to the byte. A few numbers of the kernels at the sites tell it where these were not made, or where
the parameters are others than those that were read:

    v_k = r_k^T W s_k / |W|     for each site's kernel W, with fixed vectors r_k, s_k of +1 and -1

For two unrelated kernels the v_k differ by about 1. Rounding changes them by the relative size of
the rounding error, whose signs average out: about 1e-3 in bfloat16 and 1e-2 in int8.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from mend_jax.models.family import told_apart
from mend_jax.models.quantize import float_kernel
from mend_jax.models.registry import Base
from mend_jax.parallel import fetch
from mend_jax.sites import SiteError

_VECTORS = 4
_TOKENIZER = "tokenizer"
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02, "int8": 0.2}
"""How far two v_k of one kernel may be apart, by the coarser of the two dtypes."""


def fingerprint(base: Base, sites: Sequence[str]) -> dict[str, Any]:
    """The base's dimensions (16 hex digits of their hash), v_1 ... v_4 of each site, and the
    checksums of all that was read; for JSON.

    Raises:
      SiteError: the base lacks a kernel at one of the sites.
    """
    kernels: dict[str, list[float]] = {}
    dtypes = set() if sites else _kernel_dtypes(base.params)
    for site in sites:
        layer = base.params
        for name in site.split("/"):
            layer = layer.get(name, {})
        if "kernel" not in layer:
            raise SiteError(f"the base {base.name!r} has no kernel at {site!r}")
        dtypes.add(layer["kernel"].dtype.name)
        signs = [_signs(n) for n in layer["kernel"].shape]
        values: Any = fetch(_project(layer, *signs))
        kernels[site] = [round(float(v), 6) for v in values]
    return {
        "dimensions": digest(base.config),
        "dtype": max(dtypes, key=lambda name: TOLERANCE[name]),
        "kernels": kernels,
        "checksums": dict(base.checksums),
    }


def digest(dimensions: Any) -> str:
    """16 hex digits of a family's dimensions."""
    said = json.dumps(told_apart(dimensions), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def difference(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """How two bases differ by their dimensions and sites, in words; None if they do not."""
    if a["dimensions"] != b["dimensions"]:
        return "its dimensions are others"
    if set(a["kernels"]) != set(b["kernels"]):
        return "the sites are others"
    tolerance = max(TOLERANCE[a["dtype"]], TOLERANCE[b["dtype"]])
    for site, values in a["kernels"].items():
        if len(values) != _VECTORS:
            return f"{len(values)} numbers of the kernel at {site!r}, not {_VECTORS}"
        gap = float(np.max(np.abs(np.subtract(values, b["kernels"][site]))))
        if not gap <= tolerance:
            return f"the kernel at {site!r} is another (off by {gap:.2g} of {tolerance:g} allowed)"
    return None


def other_bytes(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """Which tensors two bases store otherwise, or their tokenizers; None if none that is known."""
    ours, theirs = (x.get("checksums", {}) for x in (a, b))
    names = sorted(ours.keys() | theirs.keys())
    if not (has_tensors(a) and has_tensors(b)):
        names = [name for name in names if name == _TOKENIZER and ours and theirs]
    others = [name for name in names if ours.get(name) != theirs.get(name)]
    if not others:
        return None
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return f"{len(others)} of {len(names)} are stored otherwise: {', '.join(others[:5])}{more}"


def has_tensors(one: dict[str, Any]) -> bool:
    """Whether a fingerprint knows the bytes of all tensors."""
    return any(name != _TOKENIZER for name in one.get("checksums", ()))


def _kernel_dtypes(params: PyTree) -> set[str]:
    """Of all kernels, by name."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {x.dtype.name for path, x in leaves if getattr(path[-1], "key", "") == "kernel"}


def _signs(n: int) -> np.ndarray:
    # RandomState's stream is frozen for good (NEP 19), Generator's is not.
    return np.random.RandomState(n).choice(np.array([-1, 1], np.float32), (_VECTORS, n))


@jax.jit
def _project(
    layer: dict[str, Array], r: Float[Array, "4 d_in"], s: Float[Array, "4 d_out"]
) -> Float[Array, "4"]:
    kernel = float_kernel(layer)
    product = jnp.einsum("ki,ij->kj", r, kernel, precision="highest")
    return jnp.sum(product * s, axis=-1) / jnp.linalg.norm(kernel)
