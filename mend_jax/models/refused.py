"""Model types that people have and that are not implemented, and why."""

_EXPERTS = "of the mixtures of experts only Mixtral and Qwen3-MoE are implemented"
_SINKS = (
    "its attention has sinks, which are not implemented, and its experts are stored as mxfp4, "
    "which is not read"
)
_VISION = "it reads pictures or sound, too; only models of text alone are implemented"
_STATES = "its blocks keep a state in place of attention, which is not implemented"

REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "qwen2_moe",
            "olmoe",
            "granitemoe",
            "phimoe",
            "deepseek_v2",
            "deepseek_v3",
            "dbrx",
        ),
        _EXPERTS,
    ),
    (("gpt_oss",), _SINKS),
    (("gemma3", "gemma3n", "llama4", "mllama", "qwen2_vl", "qwen2_5_vl", "phi4mm"), _VISION),
    (("mamba", "mamba2", "falcon_mamba", "rwkv", "jamba", "recurrent_gemma"), _STATES),
)
"""(types, why they are refused)."""


def reason(model_type: str) -> str | None:
    """Why it is refused, if it is one of them."""
    return next((why for types, why in REFUSED if model_type in types), None)
