"""Lots: what is cut is cheapest, every item comes once, only the last batch is not full."""

from itertools import combinations

import numpy as np
import pytest

from mend_jax.data.bucketing import cuts, lots, overlapped


def cost(sizes: list[int], ends: tuple[int, ...], program: float) -> float:
    return sum(min(end for end in ends if end >= size) for size in sizes) + program * len(ends)


@pytest.mark.parametrize("program", [0.5, 20.0, 300.0])
def test_no_way_to_cut_costs_less(program: float):
    rng = np.random.default_rng(int(program))
    sizes = rng.geometric(0.2, 80).clip(max=12).tolist()
    known = sorted(set(sizes))
    every = [
        (*ends, known[-1]) for n in range(len(known)) for ends in combinations(known[:-1], n)
    ]
    cheapest = min(cost(sizes, ends, program) for ends in every)
    assert cost(sizes, tuple(cuts(sizes, program)), program) == pytest.approx(cheapest)


def test_dear_programs_are_few_and_cheap_ones_many():
    sizes = [1, 2, 3, 4, 5] * 10
    assert cuts(sizes, 1000.0) == [5] and cuts(sizes, 0.1) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("n", [1, 200, 1500])
def test_every_item_comes_once_in_full_batches_and_a_rest(n: int):
    sizes = np.random.default_rng(n).integers(1, 60, n).tolist()
    made = list(lots(sizes, 100.0, lambda size: 128 // size))
    assert all(len(chosen) == 128 // size for size, chosen in made[:-1])
    assert len(made[-1][1]) <= 128 // made[-1][0]
    assert all(sizes[i] <= size for size, chosen in made for i in chosen)
    assert sorted(i for _, chosen in made for i in chosen) == list(range(n))


def test_a_lot_that_fills_no_batch_joins_the_next():
    sizes = [5] * 10 + [1] * 10 + [9] * 3
    assert cuts(sizes, 2.0) == [1, 5, 9]
    made = [(size, len(chosen)) for size, chosen in lots(sizes, 2.0, lambda size: 8)]
    assert made == [(1, 8), (5, 8), (9, 7)]


def test_what_is_started_is_waited_for_later_and_in_order():
    started: list[int] = []
    finished = []
    for item in overlapped((started.append(i) or i for i in range(6)), ahead=2):
        finished.append((item, len(started)))
    assert finished == [(0, 3), (1, 4), (2, 5), (3, 6), (4, 6), (5, 6)]
