"""All kinds of configurations, and what transformers and `load` make of one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kinds_encoders
import kinds_gpt
import kinds_llama
import kinds_moe
import parity
import pytest
import torch
import transformers
from kinds import ABSENT
from transformers.core_model_loading import revert_weight_conversion

from mend_jax.models import registry
from mend_jax.weights import Weights

KINDS = kinds_llama.KINDS | kinds_moe.KINDS | kinds_gpt.KINDS | kinds_encoders.KINDS


def raw_config(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json."""
    model_type = name.partition(",")[0]
    raw = {"model_type": model_type, **KINDS[name].shape, **changes}
    return {key: value for key, value in raw.items() if value is not ABSENT}


def torch_model(name: str, raw: Mapping[str, Any]) -> Any:
    """What transformers makes of it, with random weights; None if it refuses."""
    torch.manual_seed(0)
    try:
        config = getattr(transformers, KINDS[name].config).from_dict(dict(raw))
        return parity.shaken(getattr(transformers, KINDS[name].model)(config), 0.1)
    except Exception:
        return None


def tensors_of(model: Any) -> dict[str, Any]:
    """Its tensors, as its own files have them: experts apart."""
    return dict(revert_weight_conversion(model, model.state_dict()))


def our_base(raw: dict[str, Any], tensors: Mapping[str, Any], folder: Path) -> registry.Base:
    """What `load` makes of a folder with this config.json and these tensors."""
    arrays = {key: value.detach().numpy().copy() for key, value in tensors.items()}
    shapes = {key: value.shape for key, value in arrays.items()}
    weights = Weights(raw, tuple(arrays), arrays.__getitem__, shapes, None, str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "open_weights", lambda _: weights)
        return registry.load(str(folder))
