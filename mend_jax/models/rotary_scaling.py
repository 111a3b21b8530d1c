"""How fast each pair of features turns with the position, and what stretches that to longer texts.

    f_i = theta^(-2i / d),   i = 0, ..., d/2 - 1

Llama 3 divides the slow ones by a factor, and those between slow and fast by less; a GGUF file
holds the divisors themselves.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mend_jax.models.settings import is_positive, require

Scaling = tuple[tuple[str, float | tuple[float, ...]], ...]
"""Sorted items: Llama 3's four numbers; or `divisors`, one for each pair; or none."""

_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_KEYS = {"default": (), "llama3": _LLAMA3, "divisors": ("divisors",)}


def rotary_frequencies(head_dim: int, theta: float, scaling: Scaling) -> Float[Array, "half_d"]:
    """Angle per position of each coordinate pair."""
    half = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    frequencies = 1.0 / theta**half
    if not scaling:
        return frequencies
    by: dict[str, Any] = dict(scaling)
    if "divisors" in by:
        return frequencies / jnp.asarray(by["divisors"], jnp.float32)
    turns = by["original_max_position_embeddings"] * frequencies / (2 * jnp.pi)
    low, high = by["low_freq_factor"], by["high_freq_factor"]
    smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (smooth + (1 - smooth) / by["factor"])


def read_rotary(said: Mapping[str, Any]) -> tuple[float, Scaling]:
    """theta and the scaling that a config.json says, under its new name or its old ones.

    Args:
      said: settled, with `rope_parameters`, `rope_scaling`, `rope_theta`, `head_dim` and
        `max_position_embeddings`.

    Raises:
      ConfigError: another scaling, or one that lacks a number.
    """
    new, old = said["rope_parameters"], said["rope_scaling"]
    require(not (new and old) or new == old, "rope_parameters and rope_scaling disagree")
    require(
        said["head_dim"] % 2 == 0, f"head_dim = {said['head_dim']} is odd: features turn in pairs"
    )
    rope = dict(new or old or {})
    where = "rope_parameters" if new else "rope_scaling"
    kind = rope.pop("type", "default")
    kind = rope.pop("rope_type", kind)
    theta = rope.pop("rope_theta", said["rope_theta"])
    if rope.get("partial_rotary_factor") in (None, 1):
        rope.pop("partial_rotary_factor", None)
    known = isinstance(kind, str) and kind in _KEYS
    require(known, f"{where}: rope_type = {kind!r} is not supported (default and llama3 are)")
    require(is_positive(theta), f"{where}: rope_theta = {theta!r} is not a finite number above 0")
    if kind == "llama3" and rope.get("original_max_position_embeddings") is None:
        rope["original_max_position_embeddings"] = said["max_position_embeddings"]
    wrong = sorted(rope.keys() ^ set(_KEYS[kind]))
    require(not wrong, f"{where}: rope_type {kind!r} lacks, or knows no, {', '.join(wrong)}")
    if kind == "divisors":
        return float(theta), (("divisors", _divisors(rope["divisors"], said["head_dim"])),)
    for key, value in rope.items():
        require(is_positive(value), f"{where}: {key} = {value!r} is not a finite number above 0")
    require(
        kind != "llama3" or rope["low_freq_factor"] < rope["high_freq_factor"],
        f"{where}: low_freq_factor is not below high_freq_factor",
    )
    return float(theta), tuple(sorted((key, float(value)) for key, value in rope.items()))


def _divisors(values: Any, head_dim: int) -> tuple[float, ...]:
    """One for each pair of features."""
    array = np.asarray(values, np.float32)
    require(
        array.shape == (head_dim // 2,) and bool(np.all(np.isfinite(array) & (array > 0))),
        f"the divisors of the rotary frequencies are not {head_dim // 2} numbers above 0",
    )
    return tuple(array.tolist())
