"""How far two trees of arrays are apart, in units of the wanted values."""

from typing import Any

import jax
import numpy as np


def assert_close(actual: Any, wanted: Any, relative: float) -> None:
    """Same structure, and every leaf within `relative` of the largest value of that leaf."""
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    pairs = zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(wanted), strict=True)
    for (path, a), w in pairs:
        a, w = np.asarray(a, np.float64), np.asarray(w, np.float64)
        name = jax.tree_util.keystr(path)
        assert a.shape == w.shape, f"{name}: {a.shape}, wanted {w.shape}"
        gap, size = np.max(np.abs(a - w), initial=0.0), np.max(np.abs(w), initial=0.0)
        assert gap <= relative * size, f"{name}: off by {gap:.3g}, largest value {size:.3g}"


def assert_equal(actual: Any, wanted: Any) -> None:
    """Same structure, and every leaf bit for bit the same."""
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    for a, w in zip(jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(w))
