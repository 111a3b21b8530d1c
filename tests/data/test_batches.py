"""From records to arrays: labels and positions, buckets, padding, and what is too long."""

from typing import Any

import jax
import numpy as np
import pytest
from compare import assert_close
from token_records import ENCODE, every_pair, some_records
from words import ids, words

from mend_jax.data.batches import Shapes, collate, shapes_of
from mend_jax.data.bucketing import ANSWERS, LENGTHS, bucket
from mend_jax.data.encoding import encode_pair
from mend_jax.data.records import Locality, Record
from mend_jax.data.token_records import Counts, Skipped, encode_records
from mend_jax.objectives import IGNORED, sequence_logits


@pytest.mark.parametrize("n", [1, 7, 8, 9, 128])
def test_a_bucket_is_the_smallest_that_holds(n: int):
    assert bucket(n, LENGTHS) == min(size for size in LENGTHS if size >= n)


def test_what_is_longer_than_the_longest_bucket_is_told():
    with pytest.raises(ValueError, match=r"129 tokens is too long: at most 128 fit"):
        bucket(129, LENGTHS)


def test_roles_alike_are_of_the_longest_shape():
    shapes = Shapes((8, 2), (16, 1), (12, 4), 7)
    assert shapes.alike == Shapes((16, 4), (16, 4), (16, 4), 7)


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
    for entry, given in zip(kept, (records[0], records[3]), strict=True):
        assert entry.record._replace(locality=given.locality) == given
        stays = [item for item in given.locality if item in entry.record.locality]
        assert list(entry.record.locality) == stays and len(stays) == len(entry.locality)
        assert entry.kinds == tuple(item.kind for item in stays)
    assert skipped == Skipped(too_long=Counts(2, 2, 2))
    assert len(kept[1].rephrases) == 1 and kept[1].kinds == ("far",)
    np.testing.assert_array_equal(kept[1].rephrases[0].tokens, ids(short))
    whole, none = encode_records(records, ENCODE)
    assert len(whole) == 4 and none == Skipped()


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
