"""A base is known again in every dtype, and no other base is taken for it."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mend_jax.models.fingerprint import difference, digest, fingerprint
from mend_jax.models.published import PUBLISHED
from mend_jax.models.quantize import quantize
from mend_jax.models.registry import FAMILIES, Base

KNOWN = {
    "smollm2-135m": "ed0b7f39fc9b2b87",
    "google/t5-small-ssm-nq": "58c1f22bfd737862",
    "gpt2": "e0262a8e8d119bd6",
    "EleutherAI/gpt-neo-2.7B": "4cb503804f57531a",
    "EleutherAI/gpt-j-6B": "a6a070683b0278e5",
    "facebook/bart-base": "feb38b2f82aa173f",
    "bert-base-uncased": "5f8bcb09dfefef25",
}
"""What saved editors know these models' dimensions by."""

SITES = ("layers_1/mlp/up_proj", "layers_2/mlp/down_proj")


@pytest.mark.parametrize("name", KNOWN)
def test_dimensions_keep_their_print(name: str):
    config = PUBLISHED[name]
    dimensions = FAMILIES[config["model_type"]].dimensions(config, ())
    assert digest(dimensions) == KNOWN[name]
    assert digest(replace(dimensions, vocab_size=dimensions.vocab_size + 1)) != KNOWN[name]


def test_a_later_field_counts_when_it_says_something():
    config = PUBLISHED["smollm2-135m"]
    dimensions = FAMILIES["llama"].dimensions(config, ())
    assert digest(replace(dimensions, mlp_bias=True)) != KNOWN["smollm2-135m"]


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


def test_a_base_that_is_edited_nowhere_has_a_dtype(base: Base):
    prints = {kind: fingerprint(one, ()) for kind, one in kinds(base).items()}
    assert {kind: one["dtype"] for kind, one in prints.items()} == {k: k for k in prints}
    assert all(one["kernels"] == {} for one in prints.values())


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
