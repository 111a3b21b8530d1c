"""The trunk out of its files: the states are those of the trunk in memory, and are kept."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from large_llama import LARGE, write_llama
from tiny_run import save_folder, start

import mend_jax as mj
from mend_jax.data.trunk_cache import CacheError, TrunkCache, cache_trunk
from mend_jax.data.trunk_pass import Passed, Plan
from mend_jax.data.trunk_stream import kept_states, plan_stream, stream_trunk
from mend_jax.models.stages import split

SITES = r"layers_3/mlp/(up|down)_proj"


def some_texts(n: int = 60, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(300, size=rng.integers(3, 20)).astype(np.int32) for _ in range(n)]


TEXTS = some_texts()
MB = 2**20
CONSTANT = 160 * MB  # pages of one tensor (32 MB), activations of 1,024 tokens


def make(base: mj.Base, texts: list[np.ndarray], keep: tuple[int, ...] = ()) -> tuple[Any, Plan]:
    trunk = split(base.model, SITES)[0].clone(keep=keep)
    return trunk, plan_stream(base, trunk, texts)


def same(cache: TrunkCache, wanted: TrunkCache, texts: list[np.ndarray]) -> bool:
    pairs = [(cache.lookup(x), wanted.lookup(x)) for x in texts]
    pairs += [(cache.states(x), wanted.states(x)) for x in texts]
    return all(np.array_equal(a, b) for a, b in pairs) and cache.dtype == wanted.dtype


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("llama") / "model", layers=4)


@pytest.fixture(autouse=True)
def kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEND_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trunk"


class Streamed(NamedTuple):
    """A tail, and what was made by streaming its trunk."""

    base: mj.Base
    trunk: Any
    cache: TrunkCache


@pytest.fixture
def streamed(folder: Path, kept_in: Path) -> Streamed:
    base = mj.load(str(folder), parts="tail", sites=SITES)
    trunk, plan = make(base, TEXTS, (1, 2))
    return Streamed(base, trunk, stream_trunk(base, trunk, plan))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_states_are_those_of_the_trunk_in_memory(folder: Path, kept_in: Path, dtype: str):
    """Those that a scope reads too; and each stage is read once, for all texts. To the bit, but in
    bfloat16, which one program of several stages does not round to between them."""
    whole = mj.load(str(folder), dtype=dtype)
    tail = mj.load(str(folder), dtype=dtype, parts="tail", sites=SITES)
    asked: list[str] = []

    def stored(shapes: Any) -> Any:
        asked.extend(shapes)
        return tail.stored(shapes)

    trunk, plan = make(tail, TEXTS, (1, 2, 3, 4))
    told: list[tuple[int, int]] = []
    passes: list[Passed] = []
    from_files = tail._replace(stored=stored)
    cache = stream_trunk(from_files, trunk, plan, lambda *x: told.append(x), passes.append)
    wanted = cache_trunk(trunk, whole.params, TEXTS)
    assert same(cache, wanted, TEXTS) or dtype == "bfloat16"
    for text in TEXTS:
        off = np.float32(cache.states(text)) - np.float32(wanted.states(text))
        assert np.max(np.abs(off)) < 0.1 * np.std(np.float32(wanted.states(text)))
    assert asked == ["layers_0", "layers_1", "layers_2"]
    assert plan.size == plan.states.stat().st_size and "60 texts" in plan.told
    assert told[-1] == (4 * plan.rows,) * 2
    (passed,) = passes
    below = [whole.params[f"layers_{i}"] for i in range(3)]
    weights = sum(x.size for x in jax.tree.leaves(below) if x.ndim == 2)
    assert passed.tokens == plan.rows and passed.flops == 2 * weights * plan.rows
    stream_trunk(from_files, trunk, plan, passed=passes.append)
    assert len(passes) == 1  # they are kept: there was no pass
    left = {path.suffix for path in plan.states.parent.iterdir()}
    assert left <= {".states", ".index", ".lock", ".json"}


def test_kept_states_serve_who_comes_next(streamed: Streamed):
    """All of the texts or some, in any order; nothing of the trunk is read."""

    def stored(shapes: Any) -> Any:
        raise AssertionError("the trunk is read")

    base = streamed.base._replace(stored=stored)
    for texts in (TEXTS, TEXTS[::-1], TEXTS[7:20]):
        trunk, plan = make(base, texts, (1, 2))
        assert same(stream_trunk(base, trunk, plan), streamed.cache, texts)


def test_states_of_something_else_are_not_taken(streamed: Streamed, folder: Path, tmp_path: Path):
    base = streamed.base
    assert kept_states(make(base, TEXTS, (1, 2))[1]) is not None
    assert kept_states(make(base, [*TEXTS, np.arange(5, dtype=np.int32)], (1, 2))[1]) is None
    assert kept_states(make(base, TEXTS, (1,))[1]) is None
    assert kept_states(make(base, TEXTS)[1]) is None
    fewer = split(base.model, "layers_2/mlp/up_proj")[0].clone(keep=(1, 2))
    assert kept_states(plan_stream(base, fewer, TEXTS)) is None
    other = {**base.checksums, "model.layers.1.mlp.up_proj.weight": "0"}
    assert kept_states(make(base._replace(checksums=other), TEXTS, (1, 2))[1]) is None
    with pytest.raises(ValueError, match="it has none"):
        make(base._replace(checksums={}), TEXTS)
    copy = shutil.copytree(folder, tmp_path / "copy")  # the same base elsewhere is the same base
    again = mj.load(str(copy), parts="tail", sites=SITES)
    assert kept_states(make(again, TEXTS, (1, 2))[1]) is not None


@pytest.mark.parametrize("suffix", [".states", ".index"])
def test_damaged_files_are_made_anew(streamed: Streamed, suffix: str):
    """A bit of any byte, and any end, of the index; some of the states."""
    trunk, plan = make(streamed.base, TEXTS, (1, 2))
    path = plan.states.with_suffix(suffix)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)

    def put(content: bytes) -> None:  # as another file: the first is still mapped
        path.unlink()
        path.write_bytes(content)

    for at in (0, 9, len(whole) - 1, *rng.integers(len(whole), size=30).tolist()):
        put(whole[:at])
        assert kept_states(plan) is None, f"cut at {at}"
        raw = bytearray(whole)
        raw[at] ^= 4
        put(bytes(raw))
        cache = kept_states(plan)  # a bit of the header may mean nothing
        assert cache is None or (suffix == ".index" and same(cache, streamed.cache, TEXTS)), at
    put(whole[:-1])
    assert same(stream_trunk(streamed.base, trunk, plan), streamed.cache, TEXTS)
    assert path.read_bytes() == whole


def test_a_disk_that_is_too_small_is_told_before(streamed: Streamed):
    trunk, plan = make(streamed.base, TEXTS[:5])
    with pytest.raises(CacheError, match=r"states of 5 texts .* MB are free: make room there"):
        stream_trunk(streamed.base, trunk, plan._replace(rows=10**15))
    assert not plan.states.exists()


def test_a_base_that_is_whole_is_streamed_too(folder: Path, streamed: Streamed):
    base = mj.load(str(folder))
    trunk, plan = make(base, TEXTS[:9])
    cache = stream_trunk(base, trunk, plan)
    assert all(np.array_equal(cache.lookup(x), streamed.cache.lookup(x)) for x in TEXTS[:9])
    assert jax.tree.leaves(base.params)


def test_memory_holds_the_tail_and_one_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And of the weights' files, the pages of one tensor."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(MB))  # what is freed goes back at once
    folder, warm = (write_llama(tmp_path / str(n), LARGE, blocks=n, shards=1) for n in (5, 2))
    script = Path(__file__).parents[1] / "support" / "stream_and_tell.py"
    child = start(tmp_path, script, folder, 5, warm, 2)
    out, error = child.communicate()
    assert child.returncode == 0, error
    grown, tail, block = map(int, out.split())
    assert 2 * block > tail > block and 3 * block > 2 * CONSTANT
    assert grown < tail + block + CONSTANT
