"""Phi-3 and Phi-4: Llama's blocks, whose projections of one input are stored as one.

Abdin et al. 2024 (arXiv 2404.14219; Phi-4-mini: 2503.01743). They are taken apart as they are
loaded, so that each can be edited by itself. In each head only the first features may turn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mend_jax.models import declared
from mend_jax.models.layer_kinds import read_windows
from mend_jax.models.llama import family
from mend_jax.models.llama_config import LlamaConfig, rotation
from mend_jax.models.rotary_scaling import read_rotary, read_share
from mend_jax.models.settings import Declared, require


@dataclass(frozen=True)
class Phi3Config(LlamaConfig):
    """The dimensions."""

    declared: ClassVar[Declared] = declared.PHI3
    fused: ClassVar[bool] = True

    @classmethod
    def layers(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """With LongRoPE, also under its older names, up to the context that came before it."""
        said = {**said}
        for key in ("rope_parameters", "rope_scaling"):
            rope = dict(said[key] or {})
            kind = rope.get("rope_type", rope.get("type", "default"))
            known = kind in ("default", "longrope", "su", "yarn")
            require(known, f"{key}: rope_type = {kind!r} is not supported (default, longrope are)")
            if rope and kind != "default":
                rope = {k: v for k, v in rope.items() if k != "type"} | {"rope_type": "longrope"}
            said[key] = rope or None
        share = said["partial_rotary_factor"] = read_share(said, said["partial_rotary_factor"])
        turning = int(said["head_dim"] * share)
        window, _ = read_windows(said)
        own = {"sliding_window": window, "turning": turning if share < 1 else None}
        return rotation(read_rotary(said, turning)) | own


FAMILY = family(Phi3Config)
