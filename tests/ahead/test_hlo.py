"""Collectives read from the text of compiled programs."""

import pytest

from ilp_jax.ahead import hlo

# As XLA writes it: a loop of 4 with a gather in a fusion that stands in two places under one
# channel, a fused scatter, and a reduction of a tuple outside.
PROGRAM = """
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%fused_a (p: bf16[8,4]) -> bf16[32,4] {
  %p = bf16[8,4]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.1 = bf16[32,4]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=5, replica_groups=mesh['axis_0'=1,'axis_1'=4] {'axis_1'}, dimensions={0}
}

%fused_b (p: bf16[8,4]) -> bf16[32,4] {
  %p.1 = bf16[8,4]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.2 = bf16[32,4]{1,0:T(8,128)(2,1)S(1)} all-gather(%p.1), channel_id=5, replica_groups=mesh['axis_0'=1,'axis_1'=4] {'axis_1'}, dimensions={0}
}

%all-reduce-scatter.1 (input: f32[32,4]) -> f32[8,4] {
  %input = f32[32,4]{1,0} parameter(0)
  %all-reduce.9 = f32[32,4]{1,0} all-reduce(%input), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice = f32[8,4]{1,0} dynamic-slice(%all-reduce.9), dynamic_slice_sizes={8,4}
}

%body (t: (s32[], bf16[8,4], f32[32,4])) -> (s32[], bf16[8,4], f32[32,4]) {
  %t = (s32[], bf16[8,4]{1,0}, f32[32,4]{1,0}) parameter(0)
  %a = bf16[8,4]{1,0} get-tuple-element(%t), index=1
  %g = bf16[32,4]{1,0} fusion(%a), kind=kOutput, calls=%fused_a
  %h = bf16[32,4]{1,0} fusion(%a), kind=kOutput, calls=%fused_b
  %r = f32[8,4]{1,0} fusion(%t), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %out = (s32[], bf16[8,4]{1,0}, f32[32,4]{1,0}) tuple(%a, %a, %a)
}

%condition (t: (s32[], bf16[8,4], f32[32,4])) -> pred[] {
  %constant.3 = s32[]{:T(128)} constant(4)
  %t.1 = (s32[], bf16[8,4]{1,0}, f32[32,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t.1), index=0
  ROOT %lt = pred[] compare(%i, %constant.3), direction=LT
}

ENTRY %main (p0: bf16[8,4], p1: f32[16]) -> f32[] {
  %p0 = bf16[8,4]{1,0} parameter(0)
  %p1 = f32[16]{0} parameter(1)
  %init = (s32[], bf16[8,4]{1,0}, f32[32,4]{1,0}) tuple(%p0, %p0, %p0)
  %while.1 = (s32[], bf16[8,4]{1,0}, f32[32,4]{1,0}) while(%init), condition=%condition, body=%body
  %all-reduce.2 = (f32[16]{0}, f32[]) all-reduce(%p1, %p1), channel_id=7, replica_groups=[2,8]<=[16], to_apply=%add
  %start = (bf16[8,4]{1,0}, bf16[8,4]{1,0}) collective-permute-start(%p0), channel_id=9, source_target_pairs={{0,1}}
  ROOT %done = f32[] get-tuple-element(%all-reduce.2), index=1
}
"""  # noqa: E501


def test_loops_fusions_and_channels_are_counted_as_they_run():
    found = hlo.collectives(PROGRAM)
    assert set(found) == {"all-gather", "all-reduce", "reduce-scatter", "collective-permute"}
    # 4 times 3/4 of 32 x 4 bfloat16, though it stands in two fusions.
    assert found["all-gather"] == hlo.Collective(1, 4, 4 * 32 * 4 * 2 * 3 / 4)
    # A scatter of 32 x 4 float32: each receives 3/4 of it.
    assert found["reduce-scatter"] == hlo.Collective(1, 4, 4 * 32 * 4 * 4 * 3 / 4)
    # 17 float32 over 8: twice 7/8.
    assert found["all-reduce"] == hlo.Collective(1, 1, 2 * 17 * 4 * 7 / 8)
    assert found["collective-permute"] == hlo.Collective(1, 1, 8 * 4 * 2)


def test_a_length_that_the_loop_states_counts_before_its_condition():
    stated = PROGRAM.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"9"}}'
    )
    assert hlo.collectives(stated)["all-gather"].runs == 9


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
        ("replica_groups=[32,16]<=[512]", 16),
        ("replica_groups=mesh['axis_0'=16,'axis_1'=4] {'axis_0','axis_1'}", 64),
        ("replica_groups=mesh['axis_0'=16,'axis_1'=4] {'axis_0':(2)8}", 8),
    ],
)
def test_sizes_of_groups(groups, size):
    assert hlo._group_size(groups) == size
