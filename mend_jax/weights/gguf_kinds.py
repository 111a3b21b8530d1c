"""The architectures that are read from GGUF: what their files say, and call their tensors.

Keys are written without the architecture before them: `.block_count` is `llama.block_count`. What
files leave out is what llama.cpp takes for it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

REQUIRED = {
    "hidden_size": ".embedding_length",
    "intermediate_size": ".feed_forward_length",
    "num_hidden_layers": ".block_count",
    "num_attention_heads": ".attention.head_count",
    "rms_norm_eps": ".attention.layer_norm_rms_epsilon",
    "max_position_embeddings": ".context_length",
}
"""{key of config.json: key of the file}, in all architectures."""

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_AROUND = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class Kind(NamedTuple):
    """An architecture.

    model_type, model: what config.json calls it, and its class.
    permuted: whether the rows of queries and keys are in llama.cpp's order (see `gguf_file.py`).
    norm_offset: what the converter to GGUF added to the norms' weights.
    layer: {name of a tensor of a block: ours}.
    read: {key of config.json: (key of the file, value where it is absent)}, beside `REQUIRED`.
    more: further keys of config.json, of those that are known.
    """

    model_type: str
    model: str
    permuted: bool = False
    norm_offset: float = 0.0
    layer: Mapping[str, str] = _LAYER
    read: Mapping[str, tuple[str, Any]] = {}
    more: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda config: {}

    def module(self, layer: str | None, part: str) -> str | None:
        """What a tensor is called here, without .weight or .bias; None if it has no place."""
        if layer is None:
            return _TOP.get(part)
        return f"model.layers.{layer}.{self.layer[part]}" if part in self.layer else None

    def part(self, module: str) -> str | None:
        """What a module is called in a file: the way back."""
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
        if match is None:
            return next((part for part, ours in _TOP.items() if ours == module), None)
        parts = (part for part, ours in self.layer.items() if ours == match[2])
        return next((f"blk.{match[1]}.{part}" for part in parts), None)


def _queries_by_width(largest: int) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Scores are divided by the root of a head's width, but in Gemma's largest model, which has so
    many blocks, by that of its share of the hidden size."""

    def more(config: Mapping[str, Any]) -> Mapping[str, Any]:
        width = config["head_dim"]
        if config["num_hidden_layers"] == largest:
            width = config["hidden_size"] // config["num_attention_heads"]
        return {"query_pre_attn_scalar": width}

    return more


_GEMMA_WINDOW = {"sliding_window": (".attention.sliding_window", 4096)}

KINDS: Mapping[str, Kind] = {
    "llama": Kind("llama", "LlamaForCausalLM", permuted=True),
    "qwen2": Kind("qwen2", "Qwen2ForCausalLM"),
    "qwen3": Kind("qwen3", "Qwen3ForCausalLM", layer=_LAYER | _HEAD_NORMS),
    "gemma": Kind("gemma", "GemmaForCausalLM", norm_offset=1.0),
    "gemma2": Kind(
        "gemma2",
        "Gemma2ForCausalLM",
        norm_offset=1.0,
        layer=_LAYER | _AROUND,
        read=_GEMMA_WINDOW
        | {
            "attn_logit_softcapping": (".attn_logit_softcapping", 50.0),
            "final_logit_softcapping": (".final_logit_softcapping", 30.0),
        },
        more=_queries_by_width(46),
    ),
    "gemma3": Kind(
        "gemma3_text",
        "Gemma3ForCausalLM",
        norm_offset=1.0,
        layer=_LAYER | _AROUND | _HEAD_NORMS,
        read=_GEMMA_WINDOW
        | {
            "final_logit_softcapping": (".final_logit_softcapping", None),
            "rope_local_base_freq": (".rope.freq_base_swa", 10000.0),
            "sliding_window_pattern": (".attention.sliding_window_pattern", 6),
        },
        more=_queries_by_width(62),
    ),
}
"""`general.architecture` -> how it is read. Mistral's files are of architecture `llama`."""
