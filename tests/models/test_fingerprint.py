"""A base is known again in every dtype, and no other base is taken for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mend_jax.models.fingerprint import difference, fingerprint
from mend_jax.models.quantize import quantize
from mend_jax.models.registry import Base

SITES = ("layers_1/mlp/up_proj", "layers_2/mlp/down_proj")


@pytest.fixture(scope="module")
def base(tiny: Any) -> Base:
    return Base(tiny.model, tiny.params, None, tiny.model.config, "tiny", None)  # type: ignore


def kinds(base: Base) -> dict[str, Base]:
    halved = jax.tree.map(lambda x: x.astype(jnp.bfloat16), base.params)
    return {
        "float32": base,
        "bfloat16": base._replace(params=halved),
        "int8": base._replace(params=quantize(base.params)),
    }


def test_the_same_base_in_every_pair_of_dtypes(base: Base):
    prints = {kind: fingerprint(one, SITES) for kind, one in kinds(base).items()}
    assert {kind: one["dtype"] for kind, one in prints.items()} == {k: k for k in prints}
    for a in prints.values():
        assert all(difference(a, b) is None for b in prints.values())


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_other_kernels_of_the_same_size(base: Base, kind: str):
    """A hundred other bases, each with one site's kernel drawn anew."""
    wanted = fingerprint(base, SITES)
    path = ("layers_2", "mlp", "down_proj", "kernel")
    rng = np.random.default_rng(0)
    for _ in range(100):
        kernel = base.params["layers_2"]["mlp"]["down_proj"]["kernel"]
        new = jnp.asarray(rng.permutation(np.asarray(kernel).ravel()).reshape(kernel.shape))
        params = jax.tree_util.tree_map_with_path(
            lambda p, x, new=new: new if tuple(k.key for k in p) == path else x, base.params
        )
        other = kinds(base._replace(params=params))[kind]
        found = difference(wanted, fingerprint(other, SITES))
        assert found is not None and "'layers_2/mlp/down_proj' is another" in found
