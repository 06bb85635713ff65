"""Visits that remedies add, and the budget that every arm keeps."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.mitigate.plan import Plan, balanced, more, times, without


@st.composite
def plans(draw):
    n_stages, n = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    visits = draw(
        st.lists(
            st.lists(st.integers(0, 4), min_size=n, max_size=n),
            min_size=n_stages,
            max_size=n_stages,
        )
    )
    epochs = draw(st.lists(st.integers(1, 4), min_size=n_stages, max_size=n_stages))
    visits_SxN = np.array(visits, np.int32)
    visits_SxN[:, 0] = 1  # no stage is empty
    return Plan(visits_SxN, np.array(epochs, np.int32))


@settings(deadline=None)
@given(plans(), st.integers(0, 2**32), st.data())
def test_a_balanced_plan_has_just_the_visits_wanted(base, seed, data):
    rows = range(base.visits_SxN.shape[1])
    plan = times(base, data.draw(st.lists(st.sampled_from(rows), unique=True)), 3)
    plan = without(plan, data.draw(st.lists(st.sampled_from(rows[1:]), unique=True, max_size=1)))
    wanted_S = base.visits_S + data.draw(st.integers(0, 9))
    fill = np.array(data.draw(st.lists(st.sampled_from(rows), unique=True)), int)
    found = balanced(plan, base, wanted_S, fill, np.random.default_rng(seed))
    assert found.visits_S.tolist() == wanted_S.tolist()
    # What the run had and the plan kept is never thinned; what was taken out stays out.
    kept = np.minimum(plan.visits_SxN, base.visits_SxN)
    assert (found.visits_SxN >= kept).all()
    assert (found.visits_SxN[plan.visits_SxN == 0] == 0).all()


@given(plans(), st.integers(0, 40), st.data())
def test_more_visits_come_as_near_as_whole_epochs_can(plan, visits, data):
    n_stages = len(plan.epochs_S)
    first = data.draw(st.integers(0, n_stages - 1))
    stages = range(first, n_stages)
    found = more(plan, 1, stages, visits)
    added_S = (found.visits_SxN - plan.visits_SxN)[:, 1]
    assert (added_S >= 0).all() and not added_S[:first].any()
    total = int((added_S * plan.epochs_S).sum())
    assert abs(total - visits) <= plan.epochs_S[stages[0]] / 2
    others = np.delete(found.visits_SxN, 1, axis=1)
    assert (others == np.delete(plan.visits_SxN, 1, axis=1)).all()
