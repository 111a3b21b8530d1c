"""The dimensions of Llama and its kin, and how a config.json says them.

What the kin differ in are fields here, so that one model (`llama.py`) is all of them. A kind of
them is a subclass: the keys that it declares, and what its class always does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mend_jax.models import declared
from mend_jax.models.causal import Names
from mend_jax.models.family import later, read_dimensions
from mend_jax.models.layer_kinds import read_unturned, read_windows
from mend_jax.models.rotary_scaling import Rotary, Scaling, read_rotary
from mend_jax.models.settings import Declared, check_heads, settle


@dataclass(frozen=True)
class LlamaConfig:
    """The dimensions; field names are those of Hugging Face's config.json, where it has them.

    sliding_window: a token attends to so many, itself included; in all layers but the `whole` ones.
    unturned: layers without rotation. longest: positions, None for any number of them.
    embedding_multiplier, residual_multiplier, attention_multiplier (None: 1/sqrt(head_dim)): of the
      embeddings, of what a block adds, and of the scores. logits_scaling: divides the logits.
    attn_logit_softcapping, final_logit_softcapping: what scores and logits do not go beyond.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: Scaling = ()
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 2048
    sliding_window: int | None = None
    whole: tuple[int, ...] = later(())
    unturned: tuple[int, ...] = later(())
    turning: int | None = later(None)  # features of a head; None: all
    longest: int | None = later(None)
    hidden_act: str = later("silu")
    qkv_bias: bool = later(False)
    out_bias: bool = later(False)
    mlp_bias: bool = later(False)
    embedding_multiplier: float = later(1.0)
    residual_multiplier: float = later(1.0)
    attention_multiplier: float | None = later(None)
    logits_scaling: float = later(1.0)
    attn_logit_softcapping: float | None = later(None)
    final_logit_softcapping: float | None = later(None)

    declared: ClassVar[Declared] = declared.LLAMA
    qk_norm: ClassVar[Literal["", "head", "all"]] = ""
    """Whether queries and keys are normed, each head's or all of them together."""
    norm_offset: ClassVar[float] = 0.0
    fused: ClassVar[bool] = False
    """Whether files have queries, keys and values as one tensor, and gate and up as another."""
    names: ClassVar[Names] = Names(
        "self_attn", before_attention="input_layernorm", before_mlp="post_attention_layernorm"
    )

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "LlamaConfig":
        """Reads a Hugging Face config.json (the names of the tensors are not needed).

        Raises:
          ConfigError: a setting, a rotary scaling, or a kind of attention that is not implemented.
        """
        del names
        said = settle(config, cls.declared)
        heads = said["num_attention_heads"]
        if said.get("head_dim") is None:
            check_heads(said, "hidden_size", "num_attention_heads")
            said["head_dim"] = said["hidden_size"] // heads
        said["num_key_value_heads"] = said["num_key_value_heads"] or heads
        check_heads(said, "num_attention_heads", "num_key_value_heads")
        if "attention_bias" in said:
            bias = said["attention_bias"]
            said |= {"qkv_bias": bias, "out_bias": said.get("attention_out_bias", bias)}
        said |= cls.layers(said)
        return read_dimensions(cls, said)

    @classmethod
    def layers(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """What the fields say of how far each layer sees, and how it rotates."""
        window, whole = read_windows(said)
        return rotation(read_rotary(said, said["head_dim"])) | {
            "sliding_window": window,
            "whole": whole,
        }

    def window(self, layer: int) -> int | None:
        """How many keys a position of the layer sees (None: all of the past)."""
        return None if layer in self.whole else self.sliding_window

    def rotary(self, layer: int) -> Rotary | None:
        """How the layer rotates (None: it does not)."""
        return None if layer in self.unturned else Rotary(self.rope_theta, self.rope_scaling)


def rotation(rotary: Rotary) -> dict[str, Any]:
    """The fields that say it."""
    theta, scaling, longest = rotary
    return {"rope_theta": theta, "rope_scaling": scaling, "longest": longest}


@dataclass(frozen=True)
class MistralConfig(LlamaConfig):
    """Mistral: a window, of 4,096 tokens if the file names none and does not say null."""

    declared: ClassVar[Declared] = declared.MISTRAL


@dataclass(frozen=True)
class MinistralConfig(LlamaConfig):
    """Ministral: Mistral, with a window in some layers only."""

    declared: ClassVar[Declared] = declared.MINISTRAL


@dataclass(frozen=True)
class Qwen2Config(LlamaConfig):
    """Qwen2 and 2.5: queries, keys and values have biases."""

    qkv_bias: bool = later(True)
    declared: ClassVar[Declared] = declared.QWEN2


@dataclass(frozen=True)
class Qwen3Config(LlamaConfig):
    """Qwen3: each head's queries and keys are normed before they are turned."""

    declared: ClassVar[Declared] = declared.QWEN3
    qk_norm: ClassVar[Literal["", "head", "all"]] = "head"


@dataclass(frozen=True)
class SeedOssConfig(LlamaConfig):
    """Seed-OSS: the output of the attention has a bias of its own choice."""

    declared: ClassVar[Declared] = declared.SEED_OSS


@dataclass(frozen=True)
class SmolLM3Config(LlamaConfig):
    """SmolLM3: every fourth layer does not rotate, and it alone has a window, if there is one."""

    declared: ClassVar[Declared] = declared.SMOLLM3

    @classmethod
    def layers(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """As it says itself; a window without a rule of which layers have it is of the unturned."""
        unturned = read_unturned(said)
        kinds = [
            "sliding_attention" if i in unturned else "full_attention"
            for i in range(said["num_hidden_layers"])
        ]
        window, whole = read_windows(said, kinds)
        own = {"sliding_window": window, "whole": whole, "unturned": unturned}
        return super().layers({**said, "layer_types": None}) | own


@dataclass(frozen=True)
class GraniteConfig(LlamaConfig):
    """Granite 3: four multipliers."""

    attention_multiplier: float | None = later(1.0)
    declared: ClassVar[Declared] = declared.GRANITE


@dataclass(frozen=True)
class Olmo2Config(LlamaConfig):
    """OLMo 2: norms after attention and MLP, not before; queries and keys normed, all heads' at
    once."""

    declared: ClassVar[Declared] = declared.OLMO2
    qk_norm: ClassVar[Literal["", "head", "all"]] = "all"
    names: ClassVar[Names] = Names(
        "self_attn", None, "post_attention_layernorm", None, "post_feedforward_layernorm"
    )
