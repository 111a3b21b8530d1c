"""Thresholds are set where most is found and least leaks, of edits that are held beside others."""

import jax.numpy as jnp
import numpy as np

from mend_jax.data.scope_texts import ASKED, NEAR, OWN
from mend_jax.scopes.network import Near, two_keys
from mend_jax.training.thresholds import Asked, Found, found_at, with_thresholds

RECORD = np.asarray([0, 1, 0, 1])
ROLE = np.asarray([ASKED, ASKED, NEAR, OWN])


def asked(subject: float, relation: float) -> Asked:
    """Two edits: both rephrases miss by so many logits; the neighbour passes the relation's
    threshold well, the own subject in another relation the subject's."""
    sub = np.full((4, 2), -20.0)
    rel = np.full((4, 2), -20.0)
    sub[0, 0] = sub[1, 1] = -subject
    rel[0, 0] = rel[1, 1] = -relation
    sub[2], rel[2] = (-6.0, -20.0), (5.0, -20.0)
    sub[3], rel[3] = (-20.0, 5.0), (-20.0, -6.0)
    return Asked(Near(sub, rel), RECORD, ROLE)


def test_what_is_found_by_hand():
    one = asked(1.2, -2.0)
    assert found_at(one) == Found(0.0, 0.0, 0.0, 0.0)
    assert found_at(one, subject=1.5) == Found(1.0, 0.0, 0.0, 0.0)
    assert found_at(one, subject=7.0) == Found(1.0, 0.0, 1.0, 0.0)
    assert found_at(one, relation=7.0) == Found(0.0, 0.0, 0.0, 1.0)
    one.near.subject[0] = (-1.2, 3.0)  # the other edit passes both, and better
    one.near.relation[0] = (2.0, 3.0)
    assert found_at(one, subject=1.5) == Found(0.5, 0.5, 0.0, 0.0)


def test_thresholds_move_as_little_as_is_needed():
    scope = two_keys((1, 2))
    steep = {"subject": jnp.log(30.0), "relation": jnp.log(10.0)}
    phi = {"steep": steep, "threshold": {"subject": jnp.float32(0.5), "relation": jnp.float32(0.5)}}
    moved, found = with_thresholds(scope, phi, asked(1.2, 0.7))
    assert found == Found(1.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(moved["threshold"]["subject"], 0.5 - 1.5 / 30, rtol=1e-5)
    np.testing.assert_allclose(moved["threshold"]["relation"], 0.5 - 1.0 / 10, rtol=1e-5)
    as_it_was, _ = with_thresholds(scope, phi, asked(-1.0, -1.0))
    assert as_it_was["threshold"]["subject"] == np.float32(0.5)
