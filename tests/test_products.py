"""Products with a kernel of bfloat16: their values, their derivatives, and no copy of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from mend_jax import products
from mend_jax.models.layers import Linear, logits_against

D_IN, D_OUT = 24, 40


def drawn(*shape: int, seed: int = 0, dtype: Any = jnp.bfloat16) -> Array:
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def loss(product: Callable[..., Array]) -> Callable[[Array, Array], Array]:
    """Of a product twice on its way, as blocks of a model have it."""

    def of(x: Array, kernel: Array) -> Array:
        y = jnp.tanh(product(x, kernel).astype(jnp.float32))
        return jnp.mean(y * jnp.sin(jnp.arange(y.size).reshape(y.shape)))

    return of


def norm_of_gradient(function: Callable[..., Array]) -> Callable[..., Array]:
    def of(*args: Array) -> Array:
        parts = jax.grad(function, (0, 1))(*args)
        return sum(jnp.sum(jnp.square(part.astype(jnp.float32))) for part in parts)

    return of


PRODUCTS = {
    "forward": (lambda x, k: products.forward(x, k, x.dtype), lambda x, k: x @ k, (D_IN, D_OUT)),
    "backward": (
        lambda x, k: products.backward(x, k, jnp.float32), lambda x, k: x @ k.T, (D_OUT, D_IN)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_are_those_of_the_product_in_float32(name: str, order: int):
    """Of both factors, and of their derivatives again, as editors that train through steps ask."""
    ours, plain, shape = PRODUCTS[name]
    x, kernel = drawn(3, 5, D_IN), drawn(*shape, seed=1) / D_IN**0.5
    functions = [loss(ours), loss(plain)]
    for _ in range(order - 1):
        functions = [norm_of_gradient(function) for function in functions]
    found = jax.grad(functions[0], (0, 1))(x, kernel)
    wide = [a.astype(jnp.float32) for a in (x, kernel)]
    wanted = jax.grad(functions[1], (0, 1))(*wide)
    for got, want, given in zip(found, wanted, (x, kernel), strict=True):
        assert got.dtype == given.dtype
        far = np.abs(got.astype(jnp.float32) - want).max() / np.abs(want).max()
        assert far < 0.02, far


def test_a_factor_of_float32_is_not_rounded():
    """What reaches a model from its logits: to 2^-16, as in two products of bfloat16."""
    y, kernel = drawn(3, 5, D_OUT, dtype=jnp.float32), drawn(D_IN, D_OUT, seed=1)
    found = products.backward(y, kernel, jnp.float32)
    wanted = np.asarray(y, np.float64) @ np.asarray(kernel, np.float64).T
    far = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert far < 2**-15
    rounded = np.asarray(y.astype(jnp.bfloat16), np.float64) @ np.asarray(kernel, np.float64).T
    assert np.abs(rounded - wanted).max() / np.abs(wanted).max() > 2**-11


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of the CPU's compiler")
def test_nothing_copies_a_kernel():
    """Beside its arguments and results, a layer with its derivative needs less than the kernel."""
    x, kernel = drawn(2, 4, 512), drawn(512, 2048)
    layer = Linear(2048, use_bias=False, dtype=jnp.bfloat16)

    def through(x: Array, kernel: Array, table: Array) -> Array:
        y = layer.apply({"params": {"kernel": kernel}}, x)
        return jnp.sum(logits_against(jnp.tanh(y[..., :512]), table) ** 2)

    compiled = jax.jit(jax.grad(through)).lower(x, kernel, drawn(2048, 512)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < kernel.nbytes


@pytest.mark.parametrize("flag, wanted", [("avx512_bf16", jnp.bfloat16), ("avx2", jnp.float32)])
def test_what_a_processor_multiplies(
    flag: str, wanted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (told := tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flag} sse2\n")
    monkeypatch.setattr(products, "PROCESSOR", told)
    assert products.narrow_dtype.__wrapped__() == wanted
