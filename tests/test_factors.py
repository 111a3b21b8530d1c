"""The algebra of edits is that of the matrices they stand for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close

import mend_jax as mj
from mend_jax.factors import (
    group_sites,
    in_float32,
    live,
    mask_rows,
    matmul,
    natural,
    rounded,
    shape_of,
)

D_IN, D_OUT, ROWS, BATCH = 5, 7, 3, 4
RNG = np.random.default_rng(0)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def factors(*lead: int, rows: int = ROWS) -> mj.Factors:
    return mj.Factors(normal(*lead, rows, D_IN), normal(*lead, rows, D_OUT))


def dense(*lead: int) -> mj.Dense:
    return mj.Dense(normal(*lead, D_IN, D_OUT))


def matrix(part: Any) -> np.ndarray:
    """By definition: the sum over rows of outer products."""
    if isinstance(part, mj.Dense):
        return np.asarray(part.kernel)
    return sum(np.outer(u, delta) for u, delta in zip(part.u, part.delta, strict=True))


KINDS = pytest.mark.parametrize("make", [factors, dense])


@KINDS
def test_one_part_is_its_matrix(make: Callable[..., Any]):
    part, x = make(), normal(2, 6, D_IN)
    assert shape_of(part) == (D_IN, D_OUT)
    assert_close(mj.to_dense(part), matrix(part), 1e-6)
    assert_close(matmul(x, part), x @ matrix(part), 1e-5)
    assert_close(mj.norm(part), np.linalg.norm(matrix(part)), 1e-5)
    scaled = mj.scale({"a": part}, -0.5)["a"]
    assert type(scaled) is type(part)
    assert_close(mj.to_dense(scaled), -0.5 * matrix(part), 1e-6)


def test_a_bfloat16_input_is_multiplied_in_float32():
    part, x = factors(), normal(6, D_IN).astype(jnp.bfloat16)
    out = matmul(x, part)
    assert out.dtype == jnp.float32
    assert_close(out, np.asarray(x, np.float32) @ matrix(part), 1e-5)


@pytest.mark.parametrize("n, rows", [(1, 3), (40, 3), (40, 500), (2, 500), (3000, 500)])
def test_a_product_takes_the_cheaper_order(n: int, rows: int):
    part, x = factors(rows=rows), normal(2, n, D_IN)
    counted = jax.jit(matmul).lower(x, part).cost_analysis()
    thin, whole = 2 * n * rows * (D_IN + D_OUT), (2 * n + rows) * D_IN * D_OUT
    assert isinstance(counted, dict) and counted["flops"] == 2 * min(thin, whole)
    assert_close(matmul(x, part), np.asarray(x, float) @ matrix(part), 1e-4)
    many = jax.tree.map(lambda x: jnp.stack([x, -x]), part)  # one for each of the x
    counted = jax.jit(jax.vmap(matmul)).lower(x, many).cost_analysis()
    thin, whole = n * rows * (D_IN + D_OUT), (n + rows) * D_IN * D_OUT
    assert isinstance(counted, dict) and counted["flops"] == 4 * min(thin, whole)
    assert jax.jit(matmul).lower(x, many).cost_analysis() == counted


@KINDS
@pytest.mark.parametrize("other", [lambda: factors(rows=2), dense])
def test_add(make: Callable[..., Any], other: Callable[..., Any]):
    a, b = {"a": make(), "both": make()}, {"both": other(), "b": other()}
    total = mj.add(a, b)
    assert sorted(total) == ["a", "b", "both"]
    assert total["a"] is a["a"] and total["b"] is b["b"]
    assert_close(mj.to_dense(total["both"]), matrix(a["both"]) + matrix(b["both"]), 1e-6)
    if isinstance(a["both"], mj.Factors) and isinstance(b["both"], mj.Factors):
        assert total["both"].u.shape == (ROWS + 2, D_IN)  # stays factored
    assert sorted(a) == ["a", "both"]  # a value: unchanged


@KINDS
def test_leading_axes_and_vmap_are_one_by_one(make: Callable[..., Any]):
    many, more, xs = make(BATCH), make(BATCH), normal(BATCH, 6, D_IN)
    for function in (mj.to_dense, mj.norm):
        alone = jnp.stack([function(jax.tree.map(lambda x, i=i: x[i], many)) for i in range(BATCH)])
        assert_close(function(many), alone, 1e-5)
        assert_close(jax.vmap(function)(many), alone, 1e-5)
    products = jax.vmap(matmul)(xs, many)
    assert_close(products, jnp.einsum("bni,bio->bno", xs, mj.to_dense(many)), 1e-5)
    added = jax.vmap(lambda a, b: mj.add({"s": a}, {"s": b})["s"])(many, more)
    assert_close(mj.to_dense(added), mj.to_dense(many) + mj.to_dense(more), 1e-5)
    scaled = jax.vmap(lambda a, by: mj.scale({"s": a}, by)["s"])(many, jnp.arange(4.0))
    wanted = jnp.arange(4.0)[:, None, None] * mj.to_dense(many)
    assert_close(mj.to_dense(scaled), wanted, 1e-6)


def test_the_norm_of_rows_that_cancel_is_not_nan():
    part = factors()
    cancelled = mj.add({"s": part}, mj.scale({"s": part}, -1.0))["s"]
    assert 0 <= mj.norm(cancelled) < 1e-3 * mj.norm(part)


@pytest.mark.parametrize("of", [jnp.asarray, np.asarray])
def test_rounded_rows_are_off_by_a_part_in_a_thousand(of: Callable[[Any], Any]):
    """However long u is and however short delta; and a second time, by nothing more."""
    part, sizes = factors(), jnp.asarray([[1e4], [1.0], [1e-6]])
    part = mj.Factors(part.u * sizes, part.delta / sizes * 1e-4)
    part = mj.Factors(part.u.at[1].set(0), part.delta)
    few = rounded(mj.Factors(*map(of, part)))
    assert few.u.dtype == few.delta.dtype == np.float16
    whole, kept = in_float32({"few": few, "again": rounded(mj.Factors(*(
        jnp.asarray(x, jnp.float32) for x in few)))}).values()  # fmt: skip
    assert_close(mj.to_dense(whole), mj.to_dense(part), 1e-3)
    assert_close(mj.to_dense(kept), mj.to_dense(whole), 1e-3)
    assert not np.any(few.u[1])


def test_a_row_lives_if_neither_side_is_zero():
    part = factors(BATCH)
    part = mj.Factors(part.u.at[1, 0].set(0), part.delta.at[2, 1].set(0).at[3, 2, 1:].set(0))
    wanted = np.ones((BATCH, ROWS), bool)
    wanted[1, 0] = wanted[2, 1] = False
    np.testing.assert_array_equal(live(part), wanted)
    masked = mask_rows(part, live(part))
    assert_close(mj.to_dense(masked), mj.to_dense(part), 1e-6)  # dead rows add nothing anyway
    assert not np.any(masked.u[2, 1]) and not np.any(masked.delta[1, 0])


def test_sites_group_by_shape_in_natural_order():
    tall, wide = mj.Factors(normal(1, 3), normal(1, 2)), mj.Factors(normal(1, 2), normal(1, 3))
    sites = {"l_10/up": wide, "l_9/up": wide, "l_9/down": tall, "l_10/down": tall}
    assert sorted(sites, key=natural) == ["l_9/down", "l_9/up", "l_10/down", "l_10/up"]
    assert group_sites(sites, shared=True) == {
        "3x2": ["l_9/down", "l_10/down"],
        "2x3": ["l_9/up", "l_10/up"],
    }
    assert group_sites(sites, shared=False) == {site: [site] for site in sites}
