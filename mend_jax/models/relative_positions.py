"""T5's buckets of distances: which row of a bias table belongs to how far a key is from a query.

Half of the buckets (of a direction) hold one distance each; in the others the distances grow by a
constant factor up to `farthest`, and everything beyond falls into the last:

    bucket(n) = e + floor(log(n / e) / log(farthest / e) (buckets - e)),  n >= e = buckets / 2

Where the quotient is a whole number by its mathematics, float32 decides. So the rows are made on
the host, in the order in which transformers rounds, and not by each device's own logarithm.
"""

import math
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mend_jax.models.settings import require

FARTHEST = 2**20
"""A row is kept for each distance up to the farthest."""


def relative_bucket(
    distance: Int[Array, "*any"], both_ways: bool, buckets: int, farthest: int
) -> Int[Array, "*any"]:
    """Row of the bias table for key position minus query position.

    Args:
      both_ways: half of the buckets belong to keys after the query.
    """
    first = jnp.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    rows = jnp.asarray(bucket_rows(buckets, farthest))
    return first + rows[jnp.minimum(distance, farthest)]


def check_buckets(buckets: int, farthest: int) -> None:
    """Refuses what has no rows, or rows that a logarithm's last bit decides.

    Powers of two apart, whose logarithms all libraries round alike, a distance that lies on the
    edge of two buckets falls into one or the other by the library that transformers runs on.

    Raises:
      ConfigError: such buckets.
    """
    asked = f"relative_attention_num_buckets = {buckets}, relative_attention_max_distance = "
    require(
        buckets // 2 < farthest <= FARTHEST,
        f"{asked}{farthest} is not supported: the distance has to be more than half of the "
        f"buckets, and at most {FARTHEST}",
    )
    for one_way in (buckets, buckets // 2):
        logs = _logs(one_way, farthest)
        low, high = (
            _bucketed(np.nextafter(logs, np.float32(end)), one_way, farthest)
            for end in (-np.inf, np.inf)
        )
        quotients = np.arange(farthest + 1) / (one_way // 2)
        edge = np.nonzero((low != high) & (np.frexp(quotients)[0] != 0.5))[0]
        require(
            not len(edge),
            f"{asked}{farthest} is not supported: distance {edge[:1].tolist()} lies on the edge "
            "of two buckets, where rounding decides",
        )


def _logs(buckets: int, farthest: int) -> Float[np.ndarray, "distances"]:
    """log(n / e) of n = 0 (taken as 1), 1, ..., farthest."""
    n = np.maximum(np.arange(farthest + 1), 1).astype(np.float32)
    return np.log(n / np.float32(buckets // 2))


def _bucketed(
    logs: Float[np.ndarray, "distances"], buckets: int, farthest: int
) -> Int[np.ndarray, "distances"]:
    exact = buckets // 2
    share = logs / np.float32(math.log(farthest / exact)) * np.float32(buckets - exact)
    wide = np.minimum(exact + share.astype(np.int32), buckets - 1)
    n = np.arange(len(logs), dtype=np.int32)
    return np.where(n < exact, n, wide).astype(np.int32)


@lru_cache
def bucket_rows(buckets: int, farthest: int) -> Int[np.ndarray, "distances"]:
    """The bucket, of so many in a direction, of each distance from 0 to the farthest."""
    return _bucketed(_logs(buckets, farthest), buckets, farthest)
