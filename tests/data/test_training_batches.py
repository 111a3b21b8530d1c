"""What training steps take: the order of records, the pairs that are drawn of each."""

from collections import Counter
from functools import partial
from itertools import count, islice

import numpy as np
import pytest
from compare import assert_equal
from token_records import some_records
from words import words

from mend_jax.data.batches import Shapes
from mend_jax.data.bucketing import LONG, SHORT
from mend_jax.data.encoding import encode_pair
from mend_jax.data.messages import Chat
from mend_jax.data.records import Record
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.training_batches import Draw, in_turn, parts_of, training_batches
from mend_jax.objectives import IGNORED

SHAPES = Shapes((16, 3), (16, 3), (16, 3))


@pytest.mark.parametrize("start", [1, 5, 40])
def test_a_batch_is_a_function_of_the_seed_and_the_step(start: int):
    records = some_records()
    walked = list(islice(training_batches(records, SHAPES, Draw(4), seed=9), start + 2))
    jumped = list(islice(training_batches(records, SHAPES, Draw(4), seed=9, start=start), 2))
    assert_equal(jumped, walked[start:])
    other = next(training_batches(records, SHAPES, Draw(4), seed=10, start=start))
    with pytest.raises(AssertionError):
        assert_equal(other, walked[start])


@pytest.mark.parametrize("batch", [1, 4, 7, 10])
def test_every_record_is_seen_once_an_epoch(batch: int):
    records = some_records(7)
    names = {r.edit.tokens.tobytes(): i for i, r in enumerate(records)}
    assert len(names) == 7
    seen = []
    for example in islice(training_batches(records, SHAPES, Draw(batch), seed=2), 28):
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
    steps = list(islice(training_batches([record], SHAPES, Draw(1), seed=0), 30))
    wanted = {pair.labels[0] for pair in pairs}
    assert {step.outer.labels[0, 1, 0] for step in steps} == wanted
    assert {step.locality.labels[0, 0, 0] for step in steps} == wanted


def test_what_a_step_draws():
    """The edit input first among the outer pairs; near and far apart; what is missing is empty."""
    records = some_records()
    draw = Draw(7, outer=3, near=2, far=1)
    places: Counter[int] = Counter()
    for example in islice(training_batches(records, SHAPES, draw, seed=0), 30):
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


def test_where_some_records_are_chats_the_long_ones_have_batches_of_their_own():
    short, chat = some_records(5), Record(Chat([{"role": "user", "content": "hello"}]), "t")
    tokens = np.arange(2 * SHORT, dtype=np.int32)
    long = [r._replace(edit=r.edit._replace(tokens=tokens)) for r in some_records(2)]
    assert parts_of([*long, *short]) is None
    long = [r._replace(record=chat) for r in long]
    few = [r._replace(record=chat) for r in short[:1]]
    assert parts_of([*long, *short, *few]) == ([*short, *few], long, 0.25)
    assert parts_of([*long, *short, *short]) == ([*short, *short], long, LONG)
    assert parts_of(long) is None


@pytest.mark.parametrize("start", [0, 1, 4, 5, 23])
def test_one_step_in_five_is_long_from_wherever_it_goes_on(start: int):
    def numbers(of: str, first: int):
        return ((of, i) for i in count(first))

    def taken(first: int, steps: int):
        kinds = (partial(numbers, of) for of in ("short", "long"))
        return list(islice(in_turn(*kinds, LONG, first), steps))

    whole = taken(0, 40)
    assert taken(start, 10) == whole[start : start + 10]
    assert [i for of, i in whole if of == "long"] == list(range(round(40 * LONG)))
    assert [i for of, i in whole if of == "short"] == list(range(round(40 * (1 - LONG))))
