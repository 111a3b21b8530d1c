"""A base streams into place: beside its arrays, never more than one tensor is in host memory."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_equal
from large_llama import LARGE, SMALL, write_llama
from tiny_run import start

import mend_jax as mj

MB = 2**20
LARGEST = 32 * MB  # an MLP kernel of the large folder, and its embedding
CONSTANT = 24 * MB  # the interpreter, and what another thread is about to free


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
