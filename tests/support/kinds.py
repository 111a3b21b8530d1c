"""What a kind of configurations is: a small model, and what its config.json may say of each key."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import parity

ABSENT = "take the key out"


class Kind(NamedTuple):
    """config, model: names in transformers. shape: of the small model. same: {key: values that
    have to load}. other: {key: values that may be refused}."""

    config: str
    model: str
    shape: Mapping[str, Any]
    same: Mapping[str, tuple[Any, ...]]
    other: Mapping[str, tuple[Any, ...]]


NUMBERS = (float("nan"), float("inf"), 0, -1.0, None, "1e-5", True)
SIZES = (0, -1, 2.0, None, "2", True)
GENERAL_SAME: dict[str, tuple[Any, ...]] = {
    "torch_dtype": ("bfloat16", None),
    "use_cache": (False,),
    "initializer_range": (0.5,),
    "pad_token_id": (0,),
    "task_specific_params": ({"summarization": {"prefix": "x"}},),
    "architectures": (ABSENT, None),
    "pruned_heads": ({},),
    "output_past": (True,),
    "unheard_of": (None,),
}
GENERAL_OTHER: dict[str, tuple[Any, ...]] = {
    "vocab_size": SIZES,
    "tie_word_embeddings": (True, False, ABSENT, None, 0),
    "quantization_config": ({"quant_method": "fp8"}, {"quant_method": "mxfp4"}, {}),
    "is_decoder": (True,),
    "add_cross_attention": (True,),
    "pruned_heads": ({"0": [1]},),
    "unheard_of": (0, 1.0, False, "x"),
    "logit_scale": (0.25,),
    "auto_map": ({"AutoModel": "own.Own"},),
    "per_layer_config": ({"0": {"num_attention_heads": 1}},),
    "architectures": ("Llama", ["Unheard"], [3]),
}


def kind(
    config: str, model: str, shape: dict[str, Any], same: dict[str, Any], other: dict[str, Any]
) -> Kind:
    """With what all kinds share."""
    general = {k: v + other.pop(k, ()) for k, v in GENERAL_OTHER.items()}
    shape = {"vocab_size": parity.VOCABULARY, "architectures": [model]} | shape
    return Kind(config, model, shape, GENERAL_SAME | same, general | other)


ACTIVATIONS = ("relu", ABSENT)
