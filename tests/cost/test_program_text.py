"""Texts of compiled programs, read; and what a device does in them, counted by hand."""

import pytest

from mend_jax.cost.kernels import Kernel, work_of
from mend_jax.cost.program_text import Buffer, ProgramError, parse_program

LOOP = """HloModule jit_f, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias), \
{1}: (3, {}, must-alias) }, entry_computation_layout={(bf16[4,8]{1,0})->bf16[4,8]{1,0}}

%product (a: bf16[4,8], b: bf16[8,8]) -> f32[4,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = bf16[8,8]{1,0} parameter(1)
  ROOT %dot.1 = f32[4,8]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], bf16[4,8], bf16[8,8])) -> (s32[], bf16[4,8], bf16[8,8]) {
  %state = (s32[], bf16[4,8]{1,0}, /*index=2*/bf16[8,8]{1,0}) parameter(0)
  %x = bf16[4,8]{1,0} get-tuple-element(%state), index=1
  %w = bf16[8,8]{1,0} get-tuple-element(%state), index=2
  %n = s32[] get-tuple-element(%state), index=0
  %gemm = f32[4,8]{1,0} fusion(%x, %w), kind=kCustom, calls=%product, \
metadata={op_name="jit(f)/a(\\"b)\\"/dot_general"}
  %y = bf16[4,8]{1,0} convert(%gemm)
  ROOT %out = (s32[], bf16[4,8]{1,0}, bf16[8,8]{1,0}) tuple(%n, %y, %w)
}

%test (state.1: (s32[], bf16[4,8], bf16[8,8])) -> pred[] {
  %state.1 = (s32[], bf16[4,8]{1,0}, bf16[8,8]{1,0}) parameter(0)
  %n.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %less = pred[] compare(%n.1, %n.1), direction=LT
}

ENTRY %main (x.1: bf16[4,8], w.1: bf16[8,8]) -> bf16[4,8] {
  %x.1 = bf16[4,8]{1,0} parameter(0)
  %w.1 = bf16[8,8]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %begin = (s32[], bf16[4,8]{1,0}, bf16[8,8]{1,0}) tuple(%zero, %x.1, %w.1)
  %loop = (s32[], bf16[4,8]{1,0}, bf16[8,8]{1,0}) while(%begin), condition=%test, body=%body\
TRIPS
  ROOT %end = bf16[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""
SEVEN = ', backend_config={"known_trip_count":{"n":"7"}}'
GEMM, CONVERT, TEST = 64 + 128 + 128, 128 + 64, 4 + 4 + 1


def one(body: str, more: str = "") -> str:
    """A program whose entry holds these lines."""
    return f"HloModule m\n\n{more}\nENTRY %main (p: f32[8,4]) -> f32[8,4] {{\n{body}\n}}\n"


def test_instructions_are_read():
    program = parse_program(LOOP.replace("TRIPS", SEVEN))
    assert program.entry == "main" and set(program.computations) == {
        "product", "body", "test", "main",
    }  # fmt: skip
    body = program.computation("body")
    gemm = body.instructions["gemm"]
    assert gemm.buffers == (Buffer("f32", (4, 8)),) and gemm.operands == ("x", "w")
    assert gemm.source == 'jit(f)/a(\\"b)\\"/dot_general' and gemm.called("calls") == ("product",)
    assert body.root == "out" and body.instructions["out"].bytes == 4 + 64 + 128
    assert [user.name for user in body.users()["w"]] == ["gemm", "out"]
    assert program.aliased() == {0, 3}


@pytest.mark.parametrize(
    "dtype, bytes", [("pred", 10), ("s4", 5), ("bf16", 20), ("f8e4m3fn", 10), ("c64", 80)]
)
def test_bytes_of_an_array(dtype: str, bytes: int):
    assert Buffer(dtype, (2, 5)).bytes == bytes


def test_what_a_loop_does_counts_as_often_as_it_runs():
    work = work_of(parse_program(LOOP.replace("TRIPS", SEVEN)))
    assert work.launches == 7 + 7 + 8 and not work.endless  # the last test ends the loop
    assert work.bytes == 7 * (GEMM + CONVERT) + 8 * TEST
    assert work.flops == 7 * 2 * 4 * 8 * 8
    (product,) = work.products
    assert product == Kernel("gemm", 'jit(f)/a(\\"b)\\"/dot_general', 7, GEMM, 512.0, "bf16",
                             "fusion")  # fmt: skip


def test_a_loop_that_does_not_say_how_often_it_runs_is_told():
    work = work_of(parse_program(LOOP.replace("TRIPS", "")))
    assert work.endless == 1 and work.flops == 512


def test_a_command_buffer_counts_one_by_one():
    inner = """%commands (q: f32[8,4]) -> f32[8,4] {
  %q = f32[8,4]{1,0} parameter(0)
  %r = f32[8,4]{1,0} negate(%q)
  ROOT %s = f32[8,4]{1,0} negate(%r)
}
"""
    body = """  %p = f32[8,4]{1,0} parameter(0)
  ROOT %c = f32[8,4]{1,0} call(%p), to_apply=%commands"""
    work = work_of(parse_program(one(body, inner)))
    assert work.launches == 2 and work.bytes == 4 * 128


def test_of_a_conditional_the_longer_branch_counts():
    inner = """%same (q: f32[8,4]) -> f32[8,4] {
  ROOT %q = f32[8,4]{1,0} parameter(0)
}

%other (t: f32[8,4]) -> f32[8,4] {
  %t = f32[8,4]{1,0} parameter(0)
  ROOT %r = f32[8,4]{1,0} negate(%t)
}
"""
    body = """  %p = f32[8,4]{1,0} parameter(0)
  %yes = pred[] constant(true)
  ROOT %c = f32[8,4]{1,0} conditional(%yes, %p, %p), true_computation=%other, \
false_computation=%same"""
    assert work_of(parse_program(one(body, inner))).bytes == 256


def test_a_fusion_reads_its_slices_and_writes_in_place():
    inner = """%part (a: f32[8,4], b: f32[100,4], i: s32[]) -> f32[100,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = f32[100,4]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %cut = f32[2,4]{1,0} slice(%a), slice={[0:2], [0:4]}
  ROOT %put = f32[100,4]{1,0} dynamic-update-slice(%b, %cut, %i, %i)
}
"""
    body = """  %p = f32[8,4]{1,0} parameter(0)
  %b.1 = f32[100,4]{1,0} broadcast(%p), dimensions={}
  %i.1 = s32[] constant(0)
  ROOT %f = f32[100,4]{1,0} fusion(%p, %b.1, %i.1), kind=kLoop, calls=%part"""
    fused = work_of(parse_program(one(body, inner))).kernels[-1]
    assert fused.bytes == 32 + 4 + 32


LIBRARY = """  %p = f32[8,4]{1,0} parameter(0)
  %w = f32[4,6]{1,0} constant({...})
  %c = (f32[8,6]{1,0}, s8[4194304]{0}) custom-call(%p, %w), \
custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  ROOT %r = f32[8,6]{1,0} get-tuple-element(%c), index=0"""
ONE_ROW = """%sum (l: f32[], r: f32[]) -> f32[] {
  %l = f32[] parameter(0)
  %r = f32[] parameter(1)
  ROOT %s = f32[] add(%l, %r)
}

%fused (a: f32[8], w: f32[8,4]) -> f32[4] {
  %a = f32[8]{0} parameter(0)
  %w = f32[8,4]{1,0} parameter(1)
  %b = f32[8,4]{1,0} broadcast(%a), dimensions={0}
  %m = f32[8,4]{1,0} multiply(%b, %w), metadata={op_name="jit(f)/dot_general"}
  %z = f32[] constant(0)
  ROOT %r.1 = f32[4]{0} reduce(%m, %z), dimensions={0}, to_apply=%sum, \
metadata={op_name="jit(f)/dot_general"}
}
"""
CALLS_IT = """  %p = f32[8,4]{1,0} parameter(0)
  %v = f32[8]{0} constant({...})
  ROOT %f = f32[4]{0} fusion(%v, %p), kind=kInput, calls=%fused"""


@pytest.mark.parametrize(
    "text, flops, by",
    [
        (one(LIBRARY), 2 * 8 * 6 * 4, "library"),
        (one(CALLS_IT, ONE_ROW), 2 * 8 * 4, "reduction"),
        (one(CALLS_IT, ONE_ROW.replace("multiply", "add")), 0, ""),  # adds up parts
    ],
)
def test_whoever_multiplies(text: str, flops: int, by: str):
    (kernel,) = work_of(parse_program(text)).kernels
    assert (kernel.flops, kernel.by) == (flops, by)
    if by == "library":
        assert kernel.bytes == 4 * (32 + 24 + 48)  # not its scratch memory


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "no entry was found"),
        (LOOP.split("ENTRY")[0], "no entry was found"),
        (LOOP.replace("TRIPS", "")[:-3], "no entry was found"),
        (one("  %p = f32[8,4]{1,0} parameter(0"), "not closed"),
        (one("  %p = f32[8,4]{1,0}"), "cannot be read"),
    ],
)
def test_a_text_that_is_no_program(text: str, said: str):
    with pytest.raises(ProgramError, match=said):
        parse_program(text)


def test_a_call_of_what_is_not_there():
    body = "  %p = f32[8,4]{1,0} parameter(0)\n  ROOT %c = f32[8,4]{1,0} call(%p), to_apply=%x"
    with pytest.raises(ProgramError, match="calls x, which is not in its text"):
        work_of(parse_program(one(body)))
