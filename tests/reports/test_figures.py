"""Figures: the numbers at an axis."""

import pytest

from mend_jax.reports.figures import symlog_ticks


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (12, 40), (150, 800), (1500, 9000), (0.021, 0.049), (37, 39), (-0.001, 0.009),
        (-0.1, 0.1), (0.014, 0.06), (-800, 161), (-800, 1e10),
    ],
)  # fmt: skip
def test_an_axis_has_two_to_a_dozen_numbers_between_its_limits(low: float, high: float):
    ticks = symlog_ticks(low, high, 0.01)
    assert 2 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks)) and low <= ticks[0] and ticks[-1] <= high


def test_round_numbers():
    assert symlog_ticks(-0.02, 1.1, 0.01) == [-0.01, 0, 0.01, 0.1, 1]
    assert symlog_ticks(12, 40, 0.01) == [15, 20, 30, 40]
