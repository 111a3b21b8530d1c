"""A base streams into place: beside its arrays, never more than one tensor is in host memory."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_equal
from safetensors.numpy import save_file
from tiny_run import start

import mend_jax as mj
from mend_jax.models.llama import LlamaConfig, expected_weights

MB = 2**20
LARGEST = 32 * MB  # an MLP kernel of the large folder, and its embedding
CONSTANT = 24 * MB  # the interpreter, and what another thread is about to free
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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("large")
    return {
        "warm": write_llama(root / "warm", LARGE, blocks=1, shards=1),
        "single": write_llama(root / "single", LARGE, blocks=4, shards=1),
        "sharded": write_llama(root / "sharded", LARGE, blocks=4, shards=3),
    }


@pytest.mark.parametrize(
    "kind, dtype",
    [("single", "float32"), ("sharded", "float32"), ("single", "bfloat16"), ("single", "int8")],
)
def test_memory_beside_the_arrays(
    folders: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    dtype: str,
):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(MB))  # what is freed goes back at once
    script = Path(__file__).parents[1] / "support" / "load_and_tell.py"
    child = start(tmp_path, script, folders[kind], folders["warm"], dtype)
    out, error = child.communicate()
    assert child.returncode == 0, error
    grown, arrays = map(int, out.split())
    assert arrays > (4 if dtype == "int8" else 8) * LARGEST  # so a law broken per tensor shows
    assert grown - arrays < LARGEST + CONSTANT


@pytest.mark.parametrize("mesh", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_base_outlives_changes_to_its_file(tmp_path: Path, mesh: bool, dtype: str):
    """Nothing of it lies in the file's mapped pages."""
    folder = write_llama(tmp_path / "small", SMALL, blocks=1, shards=1)
    path = tmp_path / "small" / "model.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end] + b" " * (-end % 64)  # aligned as devices want it
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
    base = mj.load(folder, mj.make_mesh() if mesh else None, dtype)
    before = jax.tree.map(lambda x: np.array(jnp.copy(x)), base.params)
    with path.open("r+b") as file:
        file.seek(8 + len(header))
        file.write(bytes(len(content) - end))
    assert not np.any(mj.load(folder).params["embedding"])
    assert_equal(base.params, before)
