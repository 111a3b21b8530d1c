"""What devices send each other: groups in all spellings, axes of a mesh, bytes."""

import pytest

from mend_jax.cost.collectives import axes_of, groups_of, sent_over
from mend_jax.cost.kernels import work_of
from mend_jax.cost.program_text import ProgramError, parse_program

MESH = {"data": 2, "model": 4}
ROWS, COLUMNS = ((0, 1, 2, 3), (4, 5, 6, 7)), ((0, 4), (1, 5), (2, 6), (3, 7))


@pytest.mark.parametrize(
    "text, groups",
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}", ROWS),
        ("replica_groups=[2,4]<=[8], x={1}", ROWS),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x={1}", COLUMNS),
        ("replica_groups=[1,8]<=[8], x={1}", (tuple(range(8)),)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, x={1}", ROWS),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", COLUMNS),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", COLUMNS),
        ("replica_groups=mesh['a'=8] {'a':(2)4}", ROWS),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}, x=1", ROWS),
        ("replica_groups={}", ()),
        ("channel_id=3", ()),
        ("source_target_pairs={{0,4},{4,0}}", ((0, 4), (4, 0))),
    ],
)
def test_groups(text: str, groups: tuple[tuple[int, ...], ...]):
    assert groups_of(text) == groups


def test_groups_in_another_spelling_are_no_groups():
    with pytest.raises(ProgramError, match="cannot be read"):
        groups_of("replica_groups=anything")


def test_axes():
    assert axes_of(ROWS, MESH) == ("model",)
    assert axes_of(COLUMNS, MESH) == ("data",)
    assert axes_of((), MESH) == ("data", "model")
    assert axes_of(((0,), (1,)), MESH) == ()
    assert axes_of(((0, 1), (4, 5)), MESH) == ("model",)


PROGRAM = """HloModule m

ENTRY %main (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  %a = f32[8,4]{1,0} all-reduce-start(%p), replica_groups=[2,4]<=[8], to_apply=%sum
  %b = f32[8,4]{1,0} all-reduce-done(%a)
  %g = (f32[8,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%b), replica_groups=[4,2]<=[2,4]T(1,0)
  %h = f32[16,4]{1,0} all-gather-done(%g)
  %s = f32[2,4]{1,0} reduce-scatter(%b), replica_groups=[2,4]<=[8], to_apply=%sum
  ROOT %c = f32[8,4]{1,0} collective-permute(%b), source_target_pairs={{0,1},{1,0}}
}
"""


def test_bytes_sent():
    work = work_of(parse_program(PROGRAM))
    assert [one.kind for one in work.collectives] == [
        "all-reduce", "all-gather", "reduce-scatter", "collective-permute",
    ]  # fmt: skip
    assert {one.bytes for one in work.collectives} == {128} and work.launches == 4
    sent = sent_over(work.collectives, MESH)
    assert sent == {"data": 128.0, "model": 2 * 3 / 4 * 128 + 3 / 4 * 128 + 128}
