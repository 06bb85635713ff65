"""When a stage goes on, by a brute-force reading of the rule."""

from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.mitigate.progressive import next_stage


@given(
    st.lists(st.lists(st.floats(0, 5), min_size=12, max_size=12), min_size=1, max_size=4),
    st.floats(0, 0.5),
    st.integers(0, 8),
)
def test_a_stage_ends_with_the_first_epoch_that_brings_too_little(curves, delta, most):
    losses, trained = [], []
    while (stage := next_stage(losses, len(curves), delta, most)) is not None:
        if stage == len(losses):
            losses.append([])
        losses[stage].append(curves[stage][len(losses[stage])])
        trained.append(stage)
    for stage, curve in enumerate(curves):
        further = 0
        for before, after in zip(curve, curve[1 : most + 1], strict=False):
            further += 1
            if before - after < delta:
                break
        assert trained.count(stage) == 1 + further
    assert trained == sorted(trained)
