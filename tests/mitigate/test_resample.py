"""Dynamic resampling: parts that keep the run's visits and cycles, and what fell is replayed."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.mitigate.arms import make_arm
from ilp_jax.mitigate.resample import Part, cycles_of, parts_of, resampled


def test_parts_make_up_the_arm_and_its_cycles(context):
    arm = make_arm("resample", 0, context, 7)
    base = context.base
    for every in (1, 3, 1000):
        parts = parts_of(arm, base.visits_SxN, 4, every)
        for place, epochs in enumerate(base.epochs_S):
            own = [part for part in parts if part.stage == place]
            total_N = sum(part.visits_N for part in own)
            assert (total_N == base.visits_SxN[place] * epochs).all()
            wanted = arm.plan.visits_S[place] * epochs
            assert total_N.sum() + sum(part.extra for part in own) == wanted
        for k, (before, total) in enumerate(cycles_of(parts, 4)):
            updates = -(-(int(parts[k].visits_N.sum()) + parts[k].extra) // 4)
            assert 0 <= before < total and before + updates <= total
        ends = [i for i, part in enumerate(parts[:-1]) if parts[i + 1].stage != part.stage]
        for i in [*ends, len(parts) - 1]:
            before, total = cycles_of(parts, 4)[i]
            assert before + -(-(int(parts[i].visits_N.sum()) + parts[i].extra) // 4) == total


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=20),
    st.integers(0, 12),
)
def test_what_fell_most_is_visited_first(pairs, extra):
    now, best = (np.array(column) for column in zip(*map(sorted, pairs), strict=True))
    part = Part(0, np.ones(len(pairs), int), extra)
    fill = np.array([0, 1])
    found = resampled(part, best, now, 0.05, fill, np.random.default_rng(0)) - 1
    fall = np.where(best > 0, 1 - now / np.maximum(best, 1e-9), 0.0)
    fallen = set(np.flatnonzero(fall >= 0.05).tolist())
    assert found.sum() == extra
    assert set(np.flatnonzero(found).tolist()) <= (fallen or {0, 1})
    if fallen:
        order = sorted(fallen, key=lambda i: -fall[i])
        assert all(found[a] >= found[b] for a, b in zip(order, order[1:], strict=False))
        assert max(found[list(fallen)]) - min(found[list(fallen)]) <= 1
