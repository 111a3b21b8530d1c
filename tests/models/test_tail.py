"""A base of which only the tail is loaded: what it holds, what it knows, and what is refused."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from compare import assert_equal
from tiny_run import save_folder

import mend_jax as mj
from mend_jax.models.t5 import T5, T5Config
from mend_jax.models.tail import check_alone, shapes_of_tail
from mend_jax.weights import WeightsError

SITES = r"layers_3/mlp/(up|down)_proj"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MEND_JAX_CACHE", str(tmp_path / "cache"))
    return str(save_folder(tmp_path / "model", layers=4))


def shapes(*names: str, base: mj.Base) -> Any:
    return {name: jax.eval_shape(lambda x: x, base.params[name]) for name in names}


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_tail_is_a_part_of_the_whole(folder: str, dtype: str):
    whole, tail = mj.load(folder, dtype=dtype), mj.load(folder, None, dtype, None, "tail", SITES)
    assert tail.params.keys() == {"embedding", "layers_3", "head"} < whole.params.keys()
    assert tail.checksums == whole.checksums and len(tail.checksums) > 30
    assert whole.stored is None and tail.stored is not None
    read = tail.stored(shapes("layers_1", base=whole))
    both = {**tail.params, **read}
    assert_equal(both, {name: whole.params[name] for name in both})


def test_the_default_sites_cut_where_no_others_are_given(folder: str):
    assert mj.load(folder, parts="tail").params.keys() == {
        "embedding", "layers_1", "layers_2", "layers_3", "head",
    }  # fmt: skip


def test_what_is_remembered_is_not_read_again_and_never_taken_for_what_is_read(folder: str):
    """A tensor of the trunk is changed, and its file says that it was not."""
    before = mj.load(folder, parts="tail", sites=SITES)
    file = Path(folder) / "model.safetensors"
    whole = mj.load(folder)
    first = jnp.asarray(whole.params["layers_0"]["input_layernorm"]["scale"])
    stat, raw = file.stat(), bytearray(file.read_bytes())
    at = raw.index(bytes(memoryview(jax.device_get(first))))
    raw[at] ^= 1
    with file.open("r+b") as same:
        same.write(raw)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = mj.load(folder, parts="tail", sites=SITES)
    assert again.checksums == before.checksums and again.stored is not None
    assert mj.load(folder).checksums != before.checksums
    again.stored(shapes("layers_1", base=whole))
    with pytest.raises(WeightsError, match="input_layernorm.* is another tensor than before"):
        again.stored({name: whole.params[name] for name in whole.params if name[:6] == "layers"})
    os.utime(file)
    assert mj.load(folder, parts="tail", sites=SITES).checksums == mj.load(folder).checksums


def test_what_has_no_tail_of_its_own(folder: str):
    with pytest.raises(ValueError, match="'all' or 'tail'"):
        check_alone("head", None)
    with pytest.raises(ValueError, match="on one device, by one process"):
        mj.load(folder, mj.make_mesh(), parts="tail")
    with pytest.raises(mj.SiteError, match="layers_9"):
        mj.load(folder, parts="tail", sites="layers_9/mlp/up_proj")
    sizes = {"vocab_size": 8, "d_model": 4, "d_kv": 2, "d_ff": 6, "num_heads": 2, "num_layers": 2}
    model = T5(T5Config.from_hf({"model_type": "t5", **sizes}))
    with pytest.raises(ValueError, match="some-t5: .* reach into the decoder"):
        shapes_of_tail(model, "decoder/block_1/mlp/wo", "some-t5")
    part = shapes_of_tail(model, "(encoder|decoder)/block_1/mlp/wo", "some-t5")
    assert "block_0" not in part["encoder"] and part["decoder"].keys() >= {"block_0", "block_1"}
    with pytest.raises(ValueError, match="no stages below the edited layers"):
        shapes_of_tail(model, (), "some-t5")
