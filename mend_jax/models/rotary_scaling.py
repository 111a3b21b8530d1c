"""How fast each pair of features turns with the position, and what stretches that to longer texts.

    f_i = theta^(-2i / d),   i = 0, ..., d/2 - 1

What stretches divides f_i by a number of each pair. Linear scaling has one for all of them. YaRN
(Peng et al. 2023, arXiv 2309.00071, sections 3.2 to 3.4) and Llama 3 leave pairs that turn often
within the first context as they are, and divide the slow ones by the factor. LongRoPE's config.json
and GGUF files hold the divisors themselves. Dynamic scaling (NTK) does nothing up to the context
that the model was trained on, and LongRoPE has other divisors beyond it: neither is read further.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mend_jax.models.settings import is_positive, require

Scaling = tuple[tuple[str, float | tuple[float, ...]], ...]
"""Sorted items: Llama 3's four numbers; or `divisors`, one for each pair, and `attention_factor`,
which cosines and sines are multiplied by; or none."""


class Rotary(NamedTuple):
    """theta, what divides the frequencies, and the longest text that both are for (None: any)."""

    theta: float
    scaling: Scaling = ()
    longest: int | None = None


def rotary_frequencies(turning: int, theta: float, scaling: Scaling) -> Float[Array, "pairs"]:
    """Angle per position of each pair of so many features that turn."""
    half = jnp.arange(0, turning, 2, dtype=jnp.float32) / turning
    frequencies = 1.0 / theta**half
    by: dict[str, Any] = dict(scaling)
    if "divisors" in by:
        return frequencies / jnp.asarray(by["divisors"], jnp.float32)
    if not by:
        return frequencies
    turns = by["original_max_position_embeddings"] * frequencies / (2 * jnp.pi)
    low, high = by["low_freq_factor"], by["high_freq_factor"]
    smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (smooth + (1 - smooth) / by["factor"])


def magnitude(scaling: Scaling) -> float:
    """What cosines and sines are multiplied by."""
    factor: Any = dict(scaling).get("attention_factor", 1.0)
    return float(factor)


# ------------------------------------------------------------------- reading config.json


def read_rotary(said: Mapping[str, Any], turning: int) -> Rotary:
    """What a config.json says, under its new name or its old ones.

    Args:
      said: settled, with `rope_parameters`, `rope_scaling`, `rope_theta` and
        `max_position_embeddings`.
      turning: features of a head that turn.

    Raises:
      ConfigError: another scaling, or one that lacks a number.
    """
    new, old = said["rope_parameters"], said["rope_scaling"]
    require(not (new and old) or new == old, "rope_parameters and rope_scaling disagree")
    where = "rope_parameters" if new else "rope_scaling"
    return read_one(dict(new or old or {}), where, said, turning)


def read_share(said: Mapping[str, Any], share: Any) -> float:
    """The part of a head's features that turns: this, if the rotary settings say no other.

    Raises:
      ConfigError: it is no part.
    """
    for key in ("rope_parameters", "rope_scaling"):
        share = (said[key] or {}).get("partial_rotary_factor", share)
    fits = is_positive(share) and share <= 1
    require(
        fits,
        f"rotary_pct, partial_rotary_factor, or one in rope_parameters or rope_scaling, {share!r}, "
        "is not supported (above 0, up to 1, is)",
    )
    return float(share)


def read_one(rope: dict[str, Any], where: str, said: Mapping[str, Any], turning: int) -> Rotary:
    """The same of one object of them, which is found `where`."""
    require(
        turning % 2 == 0,
        f"head_dim, or its part by rotary_pct or partial_rotary_factor, is odd: {turning} features "
        "cannot turn in pairs",
    )
    kind = rope.pop("type", "default")
    kind = rope.pop("rope_type", kind)
    theta = rope.pop("rope_theta", said["rope_theta"])
    if rope.get("partial_rotary_factor") in (None, 1, said.get("partial_rotary_factor")):
        rope.pop("partial_rotary_factor", None)
    known = isinstance(kind, str) and kind in _READERS
    wanted = ", ".join(sorted(_READERS.keys() - {"divisors"}))
    require(known, f"{where}: rope_type = {kind!r} is not supported ({wanted} are)")
    require(is_positive(theta), f"{where}: rope_theta = {theta!r} is not a finite number above 0")
    needed, optional, reader = _READERS[kind]
    longest = said["max_position_embeddings"]
    if "original_max_position_embeddings" in needed:
        first = said.get("original_max_position_embeddings")
        given = rope.get("original_max_position_embeddings")
        rope["original_max_position_embeddings"] = first or given or longest
    wrong = sorted((rope.keys() - optional) ^ needed)
    require(not wrong, f"{where}: rope_type {kind!r} lacks, or knows no, {', '.join(wrong)}")
    rope = {k: v for k, v in rope.items() if v is not None or (k in needed and kind != "yarn")}
    for key, value in rope.items():
        if key in _LISTS:
            rope[key] = _each(value, turning, f"{where}: {key}")
            continue
        fits = isinstance(value, bool) if key == "truncate" else is_positive(value)
        require(fits, f"{where}: {key} = {value!r} is not a finite number above 0")
    require(
        kind != "llama3" or rope["low_freq_factor"] < rope["high_freq_factor"],
        f"{where}: low_freq_factor is not below high_freq_factor",
    )
    return reader(rope, turning, float(theta), longest)


def _default(rope: dict[str, Any], turning: int, theta: float, longest: int) -> Rotary:
    return Rotary(theta)


def _linear(rope: dict[str, Any], turning: int, theta: float, longest: int) -> Rotary:
    return Rotary(theta, (("divisors", (float(rope["factor"]),) * (turning // 2)),))


def _dynamic(rope: dict[str, Any], turning: int, theta: float, longest: int) -> Rotary:
    return Rotary(theta, (), longest)


def _llama3(rope: dict[str, Any], turning: int, theta: float, longest: int) -> Rotary:
    return Rotary(theta, tuple(sorted((key, float(value)) for key, value in rope.items())))


def _divisors(rope: dict[str, Any], turning: int, theta: float, longest: int) -> Rotary:
    return Rotary(theta, (("divisors", rope["divisors"]),))


def _longrope(rope: dict[str, Any], turning: int, theta: float, longest: int) -> Rotary:
    first = rope["original_max_position_embeddings"]
    factor = rope.get("factor", longest / first)
    stretch = math.sqrt(1 + math.log(factor) / math.log(first)) if factor > 1 else 1.0
    much = float(rope.get("attention_factor", stretch))
    return Rotary(theta, (("attention_factor", much), ("divisors", rope["short_factor"])), first)


def _yarn(rope: dict[str, Any], turning: int, theta: float, longest: int) -> Rotary:
    first = rope["original_max_position_embeddings"]
    factor = rope.get("factor", longest / first)

    def pair(turns: float) -> float:
        """The pair, a fraction of one, that turns so often in the first context."""
        return turning * math.log(first / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(rope.get("beta_fast", 32)), pair(rope.get("beta_slow", 1))
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, turning - 1)
    ramp = (np.arange(turning // 2, dtype=np.float32) - low) / (high - low or 0.001)
    kept = 1 - np.clip(ramp, 0, 1)
    divisors = tuple((1 / (kept + (1 - kept) / factor)).tolist())

    def stretch(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    much = stretch(1)
    if "mscale" in rope and "mscale_all_dim" in rope:
        much = stretch(rope["mscale"]) / stretch(rope["mscale_all_dim"])
    much = rope.get("attention_factor", much)
    return Rotary(theta, (("attention_factor", float(much)), ("divisors", divisors)))


def _each(values: Any, turning: int, where: str) -> tuple[float, ...]:
    """One for each pair of features."""
    pairs = turning // 2
    fit = isinstance(values, list) and len(values) == pairs and all(map(is_positive, values))
    wanted = f"{pairs} numbers above 0"
    require(fit, f"{where}, the divisors of the rotary frequencies, are not {wanted}")
    return tuple(np.asarray(values, np.float32).tolist())


_FIRST = "original_max_position_embeddings"
_Reader = Callable[[dict[str, Any], int, float, int], Rotary]
_READERS: dict[str, tuple[set[str], set[str], _Reader]] = {
    "default": (set(), set(), _default),
    "linear": ({"factor"}, set(), _linear),
    "dynamic": ({"factor"}, set(), _dynamic),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", _FIRST}, set(), _llama3),
    "longrope": (
        {"short_factor", "long_factor", _FIRST},
        {"factor", "attention_factor"},
        _longrope,
    ),
    "yarn": (
        {"factor", _FIRST},
        {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
        _yarn,
    ),
    "divisors": ({"divisors"}, set(), _divisors),
}
"""{rope_type: (keys that it needs, keys that it may have, what reads it)}."""
_LISTS = ("divisors", "short_factor", "long_factor")
