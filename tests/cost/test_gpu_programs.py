"""What the GPU's compiler makes of step, scorer and generation of every architecture."""

import pytest
from gpu_programs import (
    gathered,
    gradients,
    needs_compiler,
    of_float64,
    programs,
    to_the_host,
    widened,
)

from mend_jax.cost.small_families import SMALL
from mend_jax.models.registry import FAMILIES

ALL = [(name, *mesh) for name in SMALL for mesh in ((1, 1), (2, 4))]
FEW = [("llama", 2, 4)]
"""Compiled in every run of the tests; the others are `slow`."""


def test_every_architecture_has_a_small_model():
    assert set(SMALL) == set(FAMILIES)


@needs_compiler
@pytest.mark.parametrize(
    "name, data, model",
    [pytest.param(*one, marks=[] if one in FEW else pytest.mark.slow) for one in ALL],
)
def test_nothing_stands_in_a_program_that_should_not(name: str, data: int, model: int):
    found = programs(name, data, model)
    for which, program in found.all().items():
        assert not of_float64(program), which
        assert not to_the_host(program), which
        assert not widened(program, found.kernels), which
        assert not gradients(program, found.edited), which
        assert not gathered(program, found.whole), which
    assert found.step.aliased() >= set(range(found.state))  # what is donated is taken over
