"""The trunk's outputs kept: as if it were run, on disk as in memory, whoever stands beside."""

import resource
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compare import assert_close
from token_records import every_pair, some_records

from mend_jax.data.batches import shapes_of
from mend_jax.data.training_batches import Draw, training_batches
from mend_jax.data.trunk_cache import CacheError, TrunkCache, cache_trunk
from mend_jax.models.stages import split
from mend_jax.objectives import IGNORED, after_trunk, sequence_logits

SITES = r"layers_2/mlp/(up|down)_proj"


def build(tiny: Any, sequences: list[np.ndarray], **options: Any) -> TrunkCache:
    trunk, _ = split(tiny.model, SITES)
    return cache_trunk(trunk, tiny.params, sequences, **options)


def test_collating_cached_states_is_collating_and_running_the_trunk(tiny: Any):
    records = some_records()
    cache = build(tiny, [p.tokens for p in every_pair(records)])
    shapes = shapes_of(records)
    trunk, tail = split(tiny.model, SITES)
    plain = next(training_batches(records, shapes, Draw(5), seed=1))
    cached = next(training_batches(records, shapes, Draw(5), seed=1, cache=cache))
    wanted = jax.jit(lambda e: after_trunk(trunk, tiny.params, e))(plain)
    logits = jax.jit(jax.vmap(sequence_logits(tail), (None, 0)))
    for role in ("edit", "outer", "locality"):
        got, pair = getattr(cached, role), getattr(wanted, role)
        np.testing.assert_array_equal(got.labels, pair.labels)
        np.testing.assert_array_equal(got.inputs.read, pair.inputs.read)
        counts = np.float32(got.labels != IGNORED)[..., None]
        assert_close(
            logits(tiny.params, got) * counts, logits(tiny.params, pair) * counts, 1e-5
        )


def test_the_cache_is_the_same_on_disk_and_in_memory(tiny: Any, tmp_path: Path):
    sequences = [p.tokens for p in every_pair(some_records())]
    seen: list[tuple[int, int]] = []
    memory = build(tiny, sequences, progress=lambda done, total: seen.append((done, total)))
    disk = build(tiny, sequences, directory=tmp_path / "trunk")
    assert (tmp_path / "trunk" / "trunk.npy").stat().st_size > 0
    assert len(memory) == len(disk) == len({s.tobytes() for s in sequences})
    assert seen[-1] == (seen[0][1],) * 2
    for sequence in sequences:
        assert memory.lookup(sequence).shape == (len(sequence), tiny.model.config.hidden_size)
        np.testing.assert_array_equal(memory.lookup(sequence), disk.lookup(sequence))
    with pytest.raises(KeyError):
        memory.lookup(np.array([60, 60, 60], np.int32))


def test_a_cache_on_disk_that_was_changed(tiny: Any, tmp_path: Path):
    """One bit of any sequence is seen when that one is read, and the others are as they were."""
    sequences = [p.tokens for p in every_pair(some_records())]
    sequences = list({s.tobytes(): s for s in sequences}.values())
    memory, disk = build(tiny, sequences), build(tiny, sequences, directory=tmp_path)
    raw = bytearray((tmp_path / "trunk.npy").read_bytes())
    raw[-1] ^= 1
    with (tmp_path / "trunk.npy").open("r+b") as file:
        file.write(raw)
    refused = 0
    for sequence in sequences:
        try:
            np.testing.assert_array_equal(memory.lookup(sequence), disk.lookup(sequence))
        except CacheError as error:
            refused += 1
            assert "trunk.npy: rows" in str(error) and "changed or is damaged" in str(error)
    assert refused == 1


def test_cached_states_do_not_depend_on_the_neighbours(tiny: Any):
    """Alone, among others, and in another place of the batch, up to rounding."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(61, size=rng.integers(1, 17)).astype(np.int32) for _ in range(90)]
    everyone = build(tiny, sequences)
    backwards = build(tiny, sequences[::-1][:45])
    for sequence in sequences[45:]:
        assert_close(everyone.lookup(sequence), backwards.lookup(sequence), 1e-5)
    for sequence in sequences[:3]:
        alone = build(tiny, [sequence])
        assert_close(everyone.lookup(sequence), alone.lookup(sequence), 1e-5)


def some_sequences(n: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(61, size=9).astype(np.int32) for _ in range(n)]


def test_a_file_is_never_written_under_who_reads_it(tiny: Any, tmp_path: Path):
    """Another cache in the same folder changes no number of the first, whose file it takes."""
    sequences = some_sequences(8)
    first = build(tiny, sequences, directory=tmp_path)
    wanted = [np.array(first.lookup(x)) for x in sequences]
    assert any(np.any(x != 0) for x in wanted)
    seen: list[bool] = []

    def look(done: int, total: int) -> None:  # while the other one is made, too
        same = [np.array_equal(first.lookup(x), y) for x, y in zip(sequences, wanted, strict=True)]
        seen.append(all(same))

    build(tiny, some_sequences(200, seed=1), directory=tmp_path, progress=look)
    look(0, 0)
    assert len(seen) > 2 and all(seen)
    assert [path.name for path in tmp_path.iterdir()] == ["trunk.npy"]


def test_a_cache_that_is_not_finished_has_no_file(tiny: Any, tmp_path: Path):
    """Whatever stops it; here, a disk that is full (no file can grow)."""

    class Full(Exception):
        pass

    def full(done: int, total: int) -> None:
        raise Full

    build(tiny, some_sequences(3), directory=tmp_path)
    before = (tmp_path / "trunk.npy").read_bytes()
    with pytest.raises(Full):
        build(tiny, some_sequences(200), directory=tmp_path, progress=full)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            build(tiny, some_sequences(200), directory=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["trunk.npy"]
    assert (tmp_path / "trunk.npy").read_bytes() == before


@pytest.mark.parametrize("sequences", [[], [np.zeros(0, np.int32)]])
def test_no_tokens_have_no_states(tiny: Any, sequences: list[np.ndarray]):
    with pytest.raises(ValueError, match="missing or empty"):
        build(tiny, sequences)
