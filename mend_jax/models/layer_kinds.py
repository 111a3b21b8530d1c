"""Which layers of a model see all of the past, and which know positions, as config.json says it.

`layer_types` names each layer's kind of attention; without it, a model type has a rule of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mend_jax.models.settings import require

FULL, SLIDING = "full_attention", "sliding_attention"


def alternating(said: Mapping[str, Any], every: int) -> list[str]:
    """Windows, but in each layer whose number, counted from 1, `every` divides."""
    return [SLIDING if (i + 1) % every else FULL for i in range(said["num_hidden_layers"])]


def read_windows(
    said: Mapping[str, Any], kinds: Sequence[str] | None = None
) -> tuple[int | None, tuple[int, ...]]:
    """The sliding window, and the numbers of the layers that have none though others have one.

    Args:
      said: settled, with `sliding_window` (absent: there is none).
      kinds: of attention, one a layer, where `layer_types` does not say them; by default a window
        in all layers, but for Qwen's first `max_window_layers`.

    Raises:
      ConfigError: another kind of attention; not as many as there are layers; a window of no width.
    """
    n = said["num_hidden_layers"]
    window = said.get("sliding_window") if said.get("use_sliding_window", True) else None
    if kinds is None or window is None:
        plain = n if window is None else min(said.get("max_window_layers", 0), n)
        kinds = [FULL] * plain + [SLIDING] * (n - plain)
    if said.get("layer_types") is not None:
        kinds = said["layer_types"]
    require(len(kinds) == n, f"layer_types names {len(kinds)} of {n} layers")
    whole = tuple(i for i, kind in enumerate(kinds) if kind == FULL)
    require(
        all(kind in (FULL, SLIDING) for kind in kinds) and (len(whole) == n or window is not None),
        f"layer_types = {kinds!r} with sliding_window = {window} is not supported ({FULL} is, and, "
        f"with a window, {SLIDING})",
    )
    return (None, ()) if len(whole) == n else (window, whole)


def read_unturned(said: Mapping[str, Any]) -> tuple[int, ...]:
    """The numbers of the layers that do not rotate: every fourth, if the file does not say which.

    Raises:
      ConfigError: it does not say so of each layer.
    """
    n, turn = said["num_hidden_layers"], said["no_rope_layers"]
    if turn is None:
        return tuple(i for i in range(n) if (i + 1) % said["no_rope_layer_interval"] == 0)
    require(
        len(turn) >= n and all(one in (0, 1) for one in turn),
        f"no_rope_layers = {turn!r} is not supported (a 0 or 1 for each of {n} layers is)",
    )
    return tuple(i for i in range(n) if not turn[i])
