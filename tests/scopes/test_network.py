"""The keys of a scope: what of a text they are functions of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mend_jax.scopes.network import Keys, Scope, two_keys
from mend_jax.scopes.registry import scope_of

D, LATE = 12, 1
SIZES = {"heads": 2, "width": 4, "subject": 8, "relation": 8, "hidden": 6}


def keys_of(scope: Scope, states: np.ndarray) -> Keys:
    phi = scope.init(jax.random.key(0), D)
    return scope.keys(phi, jnp.asarray(states), jnp.ones(states.shape[:2], bool))


def other(states: np.ndarray, position: int, stage: int) -> np.ndarray:
    """The same, but for the states before one stage at one position."""
    changed = states.copy()
    changed[:, position, stage] = np.random.default_rng(1).standard_normal(D)
    return changed


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 5, 2, D)).astype(np.float32)


def test_keys_are_functions_of_the_text_up_to_them(states: np.ndarray):
    scope = two_keys((1, 2), LATE, **SIZES)
    before, after = (keys_of(scope, x) for x in (states, other(states, 3, 1)))
    for was, now in zip(before, after, strict=True):
        np.testing.assert_array_equal(was[:, :3], now[:, :3])
        assert np.abs(was[:, 3] - now[:, 3]).max() > 1e-2


def test_before_training_what_is_near_counts_for_more(states: np.ndarray):
    """What stands four tokens before a position moves both of its keys less than what stands one
    before it. Of the same states twice, so that contents say nothing."""
    scope = two_keys((1, 2), LATE, **SIZES)
    alike = np.repeat(states[:, :1], 5, axis=1)
    was = keys_of(scope, alike)
    for stage, key in ((0, "subject"), (1, "relation")):
        moved = [
            float(jnp.linalg.norm(getattr(keys_of(scope, other(alike, at, stage)), key)[0, 4]
                                  - getattr(was, key)[0, 4]))
            for at in (0, 3)
        ]  # fmt: skip
        assert 0 < moved[0] < 0.8 * moved[1]


@pytest.mark.parametrize("heads", [0, 2])
def test_the_relation_attends_to_what_was_asked_before(states: np.ndarray, heads: int):
    """With heads of its own. The subject's key reads no late states of others, in either case."""
    scope = two_keys((1, 2), LATE, **SIZES, asked_heads=heads)
    before, after = (keys_of(scope, x) for x in (states, other(states, 1, 1)))
    pairs = zip(before, after, strict=True)
    moved = [float(np.abs(was[:, 4] - now[:, 4]).max()) for was, now in pairs]
    assert moved[0] == 0 and (moved[1] > 1e-3) == (heads > 0)


def test_scopes_from_before_that_attention_are_as_they_were(states: np.ndarray):
    kept = {k: v for k, v in two_keys((1, 2), LATE, **SIZES).config.items() if k != "asked_heads"}
    scope = scope_of(kept)
    assert scope.config["asked_heads"] == 0
    assert "asked" not in scope.init(jax.random.key(0), D)["kernels"]


def test_in_bfloat16_keys_are_near_those_in_float32(states: np.ndarray):
    """As they are trained."""
    scope = two_keys((1, 2), LATE, **SIZES)
    phi = scope.init(jax.random.key(0), D)
    narrow = phi | {"kernels": {k: x.astype(jnp.bfloat16) for k, x in phi["kernels"].items()}}
    found = (scope.keys(p, jnp.asarray(states)) for p in (phi, narrow))
    for exact, rough in zip(*found, strict=True):
        assert rough.dtype == jnp.float32
        assert 1e-5 < np.abs(exact - rough).max() < 0.03
