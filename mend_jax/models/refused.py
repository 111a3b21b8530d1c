"""Model types that people have and that are not implemented, and why."""

_EXPERTS = (
    "experts: a router sends each token through a few of many small MLPs, whose rows no site here "
    "could tell apart"
)
_VISION = "it reads pictures or sound, too; only models of text alone are implemented"
_STATES = "its blocks keep a state in place of attention, which is not implemented"

REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "mixtral",
            "qwen2_moe",
            "qwen3_moe",
            "olmoe",
            "granitemoe",
            "phimoe",
            "deepseek_v2",
            "deepseek_v3",
            "gpt_oss",
            "dbrx",
        ),
        _EXPERTS,
    ),
    (("gemma3", "gemma3n", "llama4", "mllama", "qwen2_vl", "qwen2_5_vl", "phi4mm"), _VISION),
    (("mamba", "mamba2", "falcon_mamba", "rwkv", "jamba", "recurrent_gemma"), _STATES),
)
"""(types, why they are refused)."""


def reason(model_type: str) -> str | None:
    """Why it is refused, if it is one of them."""
    return next((why for types, why in REFUSED if model_type in types), None)
