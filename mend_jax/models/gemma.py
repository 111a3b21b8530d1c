"""Gemma 1 to 3: Llama's blocks, norms whose scale is kept as its distance from 1, large embeddings.

Gemma Team 2024 (arXiv 2403.08295, 2408.00118) and 2025 (2503.19786). Gemma 2 norms what comes out
of attention and MLP, too, bounds scores and logits, and has a window in every other layer; Gemma 3
in five of six, which rotate by a theta of their own, and norms each head's queries and keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mend_jax.models import declared
from mend_jax.models.causal import Names
from mend_jax.models.layer_kinds import FULL, SLIDING, alternating, read_windows
from mend_jax.models.llama import family
from mend_jax.models.llama_config import LlamaConfig, rotation
from mend_jax.models.rotary_scaling import Rotary, read_one
from mend_jax.models.settings import Declared, require


@dataclass(frozen=True)
class GemmaConfig(LlamaConfig):
    """Gemma 1."""

    declared: ClassVar[Declared] = declared.GEMMA
    norm_offset: ClassVar[float] = 1.0

    @classmethod
    def layers(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """Embeddings times sqrt(hidden_size); the first files say gelu and mean tanh's."""
        act = said["hidden_act"]
        return super().layers(said) | {
            "embedding_multiplier": float(said["hidden_size"] ** 0.5),
            "hidden_act": "gelu_pytorch_tanh" if act == "gelu" else act,
        }


@dataclass(frozen=True)
class Gemma2Config(LlamaConfig):
    """Gemma 2."""

    declared: ClassVar[Declared] = declared.GEMMA2
    norm_offset: ClassVar[float] = 1.0
    every: ClassVar[int] = 2
    names: ClassVar[Names] = Names(
        "self_attn",
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    )

    @classmethod
    def layers(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """A window in all but each second layer, if the file does not say which."""
        every = said.get("sliding_window_pattern", 2)
        window, whole = read_windows(said, alternating(said, every))
        return super().layers({**said, "layer_types": None}) | {
            "sliding_window": window,
            "whole": whole,
            "embedding_multiplier": float(said["hidden_size"] ** 0.5),
            "attention_multiplier": float(said["query_pre_attn_scalar"] ** -0.5),
            "hidden_act": said["hidden_activation"],
        }


@dataclass(frozen=True)
class Gemma3Config(Gemma2Config):
    """Gemma 3, of text alone. local_theta: of the layers that have a window."""

    local_theta: float = 10000.0

    declared: ClassVar[Declared] = declared.GEMMA3
    qk_norm: ClassVar[Literal["", "head", "all"]] = "head"

    @classmethod
    def layers(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """Scaling is of the layers that see all of the past."""
        given = said["rope_parameters"]
        plain = {"rope_type": "default"}
        by = {kind: dict((given or {}).get(kind) or plain) for kind in (FULL, SLIDING)}
        unknown = sorted((given or {}).keys() - by.keys())
        require(not unknown, f"rope_parameters: {', '.join(unknown)} is not supported")
        by[FULL] |= said["rope_scaling"] or {}
        where, width = "rope_parameters or rope_scaling", said["head_dim"]
        full = read_one(by[FULL], where, said, width)
        theta = {**said, "rope_theta": said["rope_local_base_freq"]}
        local = read_one(by[SLIDING], where, theta, width)
        require(not local.scaling, f"{where}: a scaling of {SLIDING} is not supported")
        own = super().layers({**said, "rope_parameters": None, "rope_scaling": None})
        return own | rotation(full) | {"local_theta": local.theta}

    def rotary(self, layer: int) -> Rotary:
        """By what the layer sees."""
        if layer in self.whole or self.sliding_window is None:
            return Rotary(self.rope_theta, self.rope_scaling)
        return Rotary(self.local_theta)


FAMILIES = {
    "gemma": family(GemmaConfig),
    "gemma2": family(Gemma2Config),
    "gemma3_text": family(Gemma3Config),
}
"""Hugging Face's `model_type` -> the family."""
