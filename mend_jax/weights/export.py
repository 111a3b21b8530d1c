"""Writes a base as a Hugging Face folder: config.json, model.safetensors, tokenizer.json.

The way back of `load_params`: the same table of names, read from right to left.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree
from safetensors.numpy import save_file

from mend_jax.files import replace_whole, write_text
from mend_jax.weights.source import Expected


def write_folder(
    folder: str | Path,
    config: Mapping[str, Any],
    params: PyTree,
    expected: Mapping[str, Expected],
    tokenizer: Any = None,
) -> None:
    """Writes the three files; each is replaced whole.

    Args:
      config: the content of config.json.
      params: float parameters in the layout of `expected`; they keep their dtype.
      tokenizer: a `tokenizers.Tokenizer`, if there is one.
    """
    folder = Path(folder)
    tensors = {}
    for name, one in expected.items():
        arrays = []
        for leaf in one.leaves:
            array = params
            for key in leaf.path:
                array = array[key]
            arrays.append(np.asarray(array))
        whole = np.concatenate(arrays, axis=-1) if one.parts else arrays[0]
        tensors[name] = np.ascontiguousarray(whole.T if one.transpose else whole)
    folder.mkdir(parents=True, exist_ok=True)
    replace_whole(
        folder / "model.safetensors", lambda draft: save_file(tensors, draft, {"format": "pt"})
    )
    write_text(folder / "config.json", json.dumps(dict(config), indent=1) + "\n")
    if tokenizer is not None:
        write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
