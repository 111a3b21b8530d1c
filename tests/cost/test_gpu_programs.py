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

from mend_jax.cost.program_text import parse_program
from mend_jax.cost.small_families import SMALL
from mend_jax.models.registry import FAMILIES

ALL = [(name, *mesh) for name in SMALL for mesh in ((1, 1), (2, 4))]
FEW = [("llama", 2, 4)]
"""Compiled in every run of the tests; the others are `slow`."""


def test_every_architecture_has_a_small_model():
    assert set(SMALL) == set(FAMILIES)


BAD = """HloModule m

%callback (c: bf16[8,4]) -> bf16[8,4] {
  ROOT %c = bf16[8,4]{1,0} parameter(0)
}

ENTRY %main (w: bf16[8,4], x: bf16[3,8]) -> f32[8,4] {
  %w = bf16[8,4]{1,0} parameter(0)
  %x = bf16[3,8]{1,0} parameter(1)
  %double = f64[3,8]{1,0} convert(%x)
  %wide = f32[8,4]{1,0} convert(%w)
  %away = bf16[3,8]{1,0:S(5)} copy(%x)
  %host = bf16[3,8]{1,0} custom-call(%x), custom_call_target="xla_ffi_python_gpu_callback"
  %whole = bf16[8,8]{1,0} all-gather(%w), replica_groups={{0,1}}, dimensions={1}
  ROOT %dw = bf16[2,4,8]{2,1,0} dot(%x, %x), lhs_contracting_dims={0}, rhs_contracting_dims={0}
}
"""


def test_what_should_not_be_there_is_found():
    program, kernels = parse_program(BAD), {(8, 4)}
    assert of_float64(program) == ["double"]
    assert widened(program, kernels) == ["wide "]
    assert to_the_host(program) == ["away", "host"]
    assert gathered(program, {64}) == ["whole "]
    assert gradients(program, kernels) == ["dw "]


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
