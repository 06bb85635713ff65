import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from ilp_jax.data.study import Stage, StudyData
from ilp_jax.train.schedule import places, total_steps

stages = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=4
)


def study(shapes):
    none = np.zeros(0, np.int32)
    return StudyData(
        (),
        (),
        tuple(
            Stage(i, f"s{i}", np.arange(n), none, ConfigDict({"epochs": epochs, "copies": copies}))
            for i, (n, copies, epochs) in enumerate(shapes, 1)
        ),
    )


def brute_force(shapes, batch_size):
    """(step, stage, epoch, batch, step in stage, steps in stage, ends epoch, ends stage)."""
    found, step = [], 0
    for index, (n_rows, copies, epochs) in enumerate(shapes, 1):
        visits = list(range(n_rows * copies))
        batches = [visits[i : i + batch_size] for i in range(0, len(visits), batch_size)]
        in_stage = 0
        for epoch in range(1, epochs + 1):
            for batch in range(len(batches)):
                step += 1
                last = batch == len(batches) - 1
                found.append(
                    [step, index, epoch, batch, in_stage, epochs * len(batches), last]
                    + [last and epoch == epochs]
                )
                in_stage += 1
    return found


@given(stages, st.integers(1, 8), st.data())
def test_places_are_nested_loops(shapes, batch_size, data):
    study_data, wanted = study(shapes), brute_force(shapes, batch_size)
    assert total_steps(study_data, batch_size) == len(wanted)
    after = data.draw(st.integers(0, len(wanted)))
    found = [
        [p.step, p.stage.index, p.epoch, p.batch_index, p.step_in_stage, p.steps_in_stage]
        + [p.ends_epoch, p.ends_stage]
        for p in places(study_data, batch_size, after)
    ]
    assert found == wanted[after:]


@pytest.mark.parametrize("after", [6, 7])
def test_nothing_is_left_after_the_last_step(after):
    assert list(places(study([(4, 1, 3)]), 2, after)) == []
