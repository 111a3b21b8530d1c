"""The unit of the benchmark: PyTorch's forward and backward of the same base on the same edit.

All gradients of the base's weights are computed, as the original does. Weights are random: the
shapes, not the values, take the time. PyTorch and transformers are imported here and needed for
nothing else.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mend_jax.example import Example
from mend_jax.models.registry import family_of

_CLASSES = {
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "classifier": "AutoModelForSequenceClassification",
}
"""By the kind of the model."""


def make_unit(
    config: Mapping[str, Any], example: Example, dtype: str, gpu: bool
) -> Callable[[], None]:
    """`unit()`: one forward and backward on the edit pair of the batch's first example.

    Args:
      dtype: "float32", else bfloat16.

    Raises:
      ImportError: PyTorch or transformers is missing.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    family = family_of(config)
    kind = family.model(family.dimensions(config, ())).kind
    theirs = transformers.AutoConfig.for_model(**config)
    device = "cuda" if gpu else "cpu"
    made_of: Any = getattr(transformers, _CLASSES[kind])
    with torch.device(device):
        wanted = torch.float32 if dtype == "float32" else torch.bfloat16
        model = made_of.from_config(theirs, dtype=wanted).eval()
    tokens, labels = (np.asarray(x)[0] for x in (example.edit.inputs.x, example.edit.labels))
    if kind == "classifier":
        scored = labels[:, 0].astype(np.float32 if theirs.num_labels == 1 else np.int64)
    elif kind == "seq2seq":
        scored = labels
    else:
        scored = np.full_like(tokens, -100)
        scored[:, -labels.shape[1] :] = labels
    whole = scored.dtype != np.float32
    inputs = {
        "input_ids": torch.tensor(tokens, device=device).long(),
        "labels": torch.tensor(scored, device=device, dtype=torch.long if whole else torch.float32),
    }

    def unit() -> None:
        model.zero_grad(set_to_none=True)
        model(**inputs).loss.backward()
        if gpu:
            torch.cuda.synchronize()

    return unit
