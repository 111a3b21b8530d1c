"""From records to arrays: labels and positions, padding, the trunk cache, the order of training."""

from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compare import assert_close, assert_equal
from words import WORDS, ids, words

from mend_jax.data.batches import (
    ANSWERS,
    LENGTHS,
    Draw,
    Shapes,
    TokenRecord,
    bucket,
    collate,
    encode_records,
    shapes_of,
    training_batches,
)
from mend_jax.data.codec import Tokens, encode_pair
from mend_jax.data.records import Locality, Record
from mend_jax.data.trunk_cache import (
    TrunkCache,
    cache_trunk,
)
from mend_jax.models.stages import split
from mend_jax.objectives import IGNORED, after_trunk, sequence_logits

SITES = r"layers_2/mlp/(up|down)_proj"
ENCODE = partial(encode_pair, words())
def some_records(n: int = 7) -> list[TokenRecord]:
    """Records of different lengths; the last without rephrases or locality."""
    rng = np.random.default_rng(3)

    def text(most: int) -> str:
        return " ".join(rng.choice(WORDS, rng.integers(1, most + 1)))

    records = [
        Record(
            text(9),
            text(3),
            tuple(text(6) for _ in range(i % 4)),
            tuple(
                Locality(text(11), text(2), kind)
                for kind in ("near", "far", "", "far")[: 1 + i % 4]
            ),
        )
        for i in range(n - 1)
    ]
    return encode_records([*records, Record(text(4), text(3))], ENCODE)[0]


def every_pair(records: list[TokenRecord]) -> list[Tokens]:
    return [pair for r in records for pair in (*r.outer, *r.locality)]


@pytest.mark.parametrize("n", [1, 7, 8, 9, 128])
def test_a_bucket_is_the_smallest_that_holds(n: int):
    assert bucket(n, LENGTHS) == min(size for size in LENGTHS if size >= n)


def test_what_is_longer_than_the_longest_bucket_is_told():
    with pytest.raises(ValueError, match=r"129 tokens is too long: at most 128 fit"):
        bucket(129, LENGTHS)


def test_what_does_not_fit_is_left_out_and_counted():
    long, short = "the " * 9, "the one"
    records = [
        Record("a", "two words"),
        Record(long, "rome"),  # 9 tokens
        Record("is", "one two one two"),  # 4 answers
        Record(
            "is",
            "rome",
            (long, short, long),
            (Locality(long, "a", "near"), Locality("a", "rome", "far"), Locality("a", long)),
        ),
    ]
    kept, skipped = encode_records(records, ENCODE, longest=8, longest_answer=3)
    assert [r.record for r in kept] == [records[0], records[3]]
    assert skipped == (2, 2, 2)
    assert len(kept[1].rephrases) == 1 and kept[1].kinds == ("far",)
    np.testing.assert_array_equal(kept[1].rephrases[0].tokens, ids(short))
    whole, none = encode_records(records, ENCODE)
    assert len(whole) == 4 and none == (0, 0, 0)


def test_the_shapes_hold_every_pair():
    records = some_records()
    shapes = shapes_of(records)
    for shape, pairs in (
        (shapes.edit, [r.edit for r in records]),
        (shapes.outer, [p for r in records for p in r.outer]),
        (shapes.locality, [p for r in records for p in r.locality]),
    ):
        assert shape[0] == bucket(max(len(p.tokens) for p in pairs), LENGTHS)
        assert shape[1] == bucket(max(len(p.read) for p in pairs), ANSWERS)


def test_padding_never_changes_a_score(tiny: Any):
    """The logits that count are the same in the smallest shape and in a larger one."""
    pairs = every_pair(some_records())
    logits = jax.jit(sequence_logits(tiny.model))
    padded = collate([pairs], (24, 6))
    assert padded.labels.shape == (1, len(pairs), 6)
    together = logits(tiny.params, jax.tree.map(lambda x: x[0], padded))
    for i, pair in enumerate(pairs[:6]):
        n, a = len(pair.tokens), len(pair.read)
        single = jax.tree.map(lambda x: x[0], collate([[pair]], (n, a)))
        np.testing.assert_array_equal(padded.labels[0, i, a:], IGNORED)
        np.testing.assert_array_equal(single.labels[0], pair.labels)
        assert_close(together[i, :a], logits(tiny.params, single)[0], 1e-5)


def test_an_empty_place_is_scored_nowhere():
    pair = encode_pair(words(), "the", "city")
    both = collate([[None, pair], [pair, None]], (8, 2))
    np.testing.assert_array_equal(np.any(both.labels != IGNORED, axis=-1), [[0, 1], [1, 0]])
    assert not np.any(both.inputs.x[0, 0]) and not np.any(both.inputs.read[0, 0])


def build(tiny: Any, sequences: list[np.ndarray], **options: Any) -> TrunkCache:
    trunk, _ = split(tiny.model, SITES)
    return cache_trunk(trunk, tiny.params, sequences, **options)


def test_collating_cached_states_is_collating_and_running_the_trunk(tiny: Any):
    records = some_records()
    cache = build(tiny, [p.tokens for p in every_pair(records)])
    shapes = shapes_of(records)
    trunk, tail = split(tiny.model, SITES)
    plain = next(training_batches(records, shapes, 5, seed=1))
    cached = next(training_batches(records, shapes, 5, seed=1, cache=cache))
    wanted = jax.jit(lambda e: after_trunk(trunk, tiny.params, e))(plain)
    logits = jax.jit(jax.vmap(sequence_logits(tail), (None, 0)))
    for role in ("edit", "outer", "locality"):
        got, pair = getattr(cached, role), getattr(wanted, role)
        np.testing.assert_array_equal(got.labels, pair.labels)
        np.testing.assert_array_equal(got.inputs.read, pair.inputs.read)
        counts = (got.labels != IGNORED)[..., None]
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


@pytest.mark.parametrize("sequences", [[], [np.zeros(0, np.int32)]])
def test_no_tokens_have_no_states(tiny: Any, sequences: list[np.ndarray]):
    with pytest.raises(ValueError, match="missing or empty"):
        build(tiny, sequences)


SHAPES = Shapes((16, 3), (16, 3), (16, 3))


@pytest.mark.parametrize("start", [1, 5, 40])
def test_a_batch_is_a_function_of_the_seed_and_the_step(start: int):
    records = some_records()
    walked = list(islice(training_batches(records, SHAPES, 4, seed=9), start + 2))
    jumped = list(islice(training_batches(records, SHAPES, 4, seed=9, start=start), 2))
    assert_equal(jumped, walked[start:])
    other = next(training_batches(records, SHAPES, 4, seed=10, start=start))
    with pytest.raises(AssertionError):
        assert_equal(other, walked[start])


@pytest.mark.parametrize("batch", [1, 4, 7, 10])
def test_every_record_is_seen_once_an_epoch(batch: int):
    records = some_records(7)
    names = {r.edit.tokens.tobytes(): i for i, r in enumerate(records)}
    assert len(names) == 7
    seen = []
    for example in islice(training_batches(records, SHAPES, batch, seed=2), 28):
        for tokens, read, labels in zip(
            example.edit.inputs.x, example.edit.inputs.read, example.edit.labels, strict=True
        ):
            n = 1 + read[0][labels[0] != IGNORED].max()
            seen.append(names[tokens[0, :n].tobytes()])
    epochs = [seen[i : i + 7] for i in range(0, len(seen) - 6, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # in a fresh order


def test_rephrases_and_locality_are_drawn_anew_each_time():
    """One record, one of three rephrases and of three locality pairs a step: all come up."""
    pairs = [encode_pair(words(), "the city is", w) for w in ("rome", "lima", "paris")]
    record = TokenRecord(pairs[0], tuple(pairs), tuple(pairs), ("near",) * 3, Record("p", "t"))
    steps = list(islice(training_batches([record], SHAPES, 1, seed=0), 30))
    wanted = {pair.labels[0] for pair in pairs}
    assert {step.outer.labels[0, 1, 0] for step in steps} == wanted
    assert {step.locality.labels[0, 0, 0] for step in steps} == wanted


def test_what_a_step_draws():
    """The edit input first among the outer pairs; near and far apart; what is missing is empty."""
    records = some_records()
    draw = Draw(outer=3, near=2, far=1)
    places: Counter[int] = Counter()
    for example in islice(training_batches(records, SHAPES, 7, 0, draw=draw), 30):
        assert example.edit.labels.shape == (7, 1, 3)
        assert example.outer.labels.shape[:2] == (7, 3)
        assert example.locality.labels.shape[:2] == (7, 3)
        np.testing.assert_array_equal(example.outer.inputs.x[:, 0], example.edit.inputs.x[:, 0])
        np.testing.assert_array_equal(example.outer.labels[:, 0], example.edit.labels[:, 0])
        filled = np.any(example.locality.labels != IGNORED, axis=-1)
        outer = np.any(example.outer.labels != IGNORED, axis=-1)
        places.update(zip(filled[:, :2].sum(-1), filled[:, 2], outer.sum(-1), strict=True))
    wanted = Counter(
        (
            min(2, sum(kind != "far" for kind in r.kinds)),
            "far" in r.kinds,
            min(3, len(r.outer)),
        )
        for r in records
    )
    assert places == {key: 30 * n for key, n in wanted.items()}
