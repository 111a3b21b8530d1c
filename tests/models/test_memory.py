"""What has no room is refused before any of it is read; what has is let through."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import mend_jax as mj
from mend_jax.models.llama import LlamaConfig, expected_weights
from mend_jax.models.memory import RoomError, check_room, device_bytes, free_bytes


def test_a_base_larger_than_the_machine(tmp_path: Path):
    """A real file of 6.6 TB, with nothing written in it: it takes no room on disk."""
    config = {
        "model_type": "llama",
        "vocab_size": 8,
        "hidden_size": 64,
        "intermediate_size": 2**33,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, one in expected_weights(LlamaConfig.from_hf(config)).items():
        size = 4 * math.prod(one.shape)
        shape = one.shape[::-1] if one.transpose else one.shape
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    wanted = r"float32 take 6,597\.1 GB.*bfloat16 takes 3,298\.5, int8 takes 1,718\.0"
    with pytest.raises(RoomError, match=wanted) as refused:
        mj.load(str(tmp_path))
    assert f"mend-jax plan --model {tmp_path}" in str(refused.value)


def test_a_mesh_shares_the_weights_and_virtual_devices_the_memory():
    free = free_bytes(jax.devices()[0])
    assert free is not None and free > 2**28
    fits = {"kernel": jax.ShapeDtypeStruct((free // 16, 2), jnp.float32)}
    check_room("half of it", fits, (), None, "float32", jnp.float32)
    too_large = {"kernel": jax.ShapeDtypeStruct((free // 4, 2), jnp.float32)}
    with pytest.raises(RoomError, match="half of it"):
        check_room("half of it", too_large, (), mj.make_mesh(), "float32", jnp.float32)
    check_room("a quarter", too_large, (), None, "int8", jnp.float32)
    assert device_bytes(too_large) == free // 4 * 8
