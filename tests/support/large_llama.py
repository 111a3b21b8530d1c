"""Llamas as Hugging Face folders, whose weights are all alike: large ones, whose memory shows."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mend_jax.models.llama import LlamaConfig, expected_weights

DIMENSIONS = {"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 2}
LARGE = {"vocab_size": 4096, "hidden_size": 2048, "intermediate_size": 4096}
SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64}


def write_llama(folder: Path, sizes: dict[str, int], blocks: int, shards: int) -> str:
    """Float32 weights of a Llama, all alike, in one file or several with an index."""
    folder.mkdir()
    config = DIMENSIONS | sizes | {"num_hidden_layers": blocks}
    (folder / "config.json").write_text(json.dumps(config))
    table = expected_weights(LlamaConfig.from_hf(config))
    weight_map: dict[str, str] = {}
    for i in range(shards):
        names = list(table)[i::shards]
        shapes = (table[n].shape[::-1] if table[n].transpose else table[n].shape for n in names)
        file = "model.safetensors" if shards == 1 else f"{i}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        arrays = (np.full(shape, 0.01, np.float32) for shape in shapes)
        save_file(dict(zip(names, arrays, strict=True)), folder / file)
    if shards > 1:
        index = json.dumps({"weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(index)
    return str(folder)
