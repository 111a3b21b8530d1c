"""Which edit acts where, by hand; and in pieces as in one."""

import jax.numpy as jnp
import numpy as np
import pytest

from mend_jax.scopes.active import NONE, Place, active, fires, nobody
from mend_jax.scopes.network import Near

TARGETS = jnp.asarray([[7, 8, NONE], [9, NONE, NONE], [5, 6, 7]])


def which(fire: list[int], tokens: list[int]) -> list[int]:
    found = active(jnp.asarray([fire]), jnp.asarray([tokens]), TARGETS, nobody(1))
    return found.edit[0].tolist()


@pytest.mark.parametrize(
    ("fire", "tokens", "wanted"),
    [
        ([-1, -1, -1], [1, 2, 3], [-1, -1, -1]),
        ([-1, 1, -1], [1, 2, 9], [-1, 1, -1]),  # one token: said at once, and released
        ([-1, 0, -1, -1], [1, 2, 7, 8], [-1, 0, 0, -1]),
        ([-1, 0, -1, -1], [1, 2, 7, 3], [-1, 0, 0, -1]),  # another token than its second
        ([-1, 0, -1, -1], [1, 2, 3, 8], [-1, 0, -1, -1]),
        ([-1, 2, 0, 0, 1], [1, 2, 5, 6, 7], [-1, 2, 2, 2, 1]),  # nobody else while it is said
        ([0, 1, -1], [1, 2, 9], [0, 1, -1]),  # 2 is not its target: the next one decides
        ([0, -1, 0, -1], [1, 7, 8, 7], [0, 0, 0, 0]),  # said, begun again, going on
    ],
)
def test_by_hand(fire: list[int], tokens: list[int], wanted: list[int]):
    assert which(fire, tokens) == wanted


def test_in_pieces_as_in_one():
    rng = np.random.default_rng(0)
    fire = jnp.asarray(rng.choice([-1, -1, 0, 1, 2], (40, 12)), jnp.int32)
    tokens = jnp.asarray(rng.integers(5, 10, (40, 12)), jnp.int32)
    whole = active(fire, tokens, TARGETS, nobody(40))
    assert len(np.unique(whole.edit)) == 4
    for cut in (1, 5, 11):
        first = active(fire[:, :cut], tokens[:, :cut], TARGETS, nobody(40))
        place = Place(*(x[:, -1] for x in first))
        second = active(fire[:, cut:], tokens[:, cut:], TARGETS, place)
        for *parts, wanted in zip(first, second, whole, strict=True):
            np.testing.assert_array_equal(np.concatenate(parts, axis=1), wanted)


def test_both_thresholds_have_to_be_passed_and_the_nearest_is_taken():
    near = Near(
        jnp.asarray([[3.0, 1.0, 9.0], [3.0, 1.0, -1.0], [-1.0, -2.0, -3.0], [5.0, 5.0, 5.0]]),
        jnp.asarray([[1.0, 2.0, -1.0], [2.0, 3.0, 9.0], [5.0, 5.0, 5.0], [1.0, 2.0, 9.0]]),
    )
    used = jnp.asarray([True, True, True])
    assert fires(near, used).tolist() == [0, 0, NONE, 2]
    assert fires(near, used.at[2].set(False)).tolist() == [0, 0, NONE, 1]
    assert fires(near, jnp.zeros(3, bool)).tolist() == [NONE] * 4
