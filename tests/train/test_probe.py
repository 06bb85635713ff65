import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from ilp_jax.data.batches import BatchMeta
from ilp_jax.data.examples import Example
from ilp_jax.data.study import Stage, StudyData, visit_order
from ilp_jax.errors import RunFailure
from ilp_jax.train.milestones import own_rows
from ilp_jax.train.probe import columns_of, mean_loss, visits_done

N = 8
some_stages = st.lists(
    st.tuples(st.sets(st.integers(0, N - 1), min_size=1), st.integers(1, 3), st.integers(1, 2)),
    min_size=1,
    max_size=3,
)


def workspace(shapes, tie=False):
    stages = tuple(
        Stage(
            i,
            f"s{i}",
            np.array(sorted(rows), np.int32),
            np.zeros(0, np.int32),
            ConfigDict({"epochs": epochs, "copies": copies}),
        )
        for i, (rows, epochs, copies) in enumerate(shapes, 1)
    )
    examples = tuple(Example(100 + i, "s", f"k{i}", prompt="p", response="r") for i in range(N))
    model = types.SimpleNamespace(config=types.SimpleNamespace(tie_embeddings=tie), lora=None)
    return types.SimpleNamespace(data=StudyData(examples, (), stages), decoder=model)


@given(some_stages)
def test_visits_done_counts_visits(shapes):
    ws, count = workspace(shapes), np.zeros(N, int)
    assert visits_done(ws, 0, 0).tolist() == count.tolist()
    for stage in ws.data.stages:
        for epoch in range(1, stage.epochs + 1):
            index, visit = visit_order(ws.data, stage, 0, epoch)
            for one, number in zip(index, visit, strict=True):
                count[one] += 1
                assert number == count[one]
            assert visits_done(ws, stage.index, epoch).tolist() == count.tolist()


@given(some_stages)
def test_own_rows_part_the_trained_rows(shapes):
    ws = workspace(shapes)
    own = [own_rows(ws.data, stage).tolist() for stage in ws.data.stages]
    for stage, rows in enumerate(own):
        before = set().union(*(rows for rows, _, _ in shapes[:stage]), ())
        assert rows == sorted(shapes[stage][0] - before)


def batch(**columns):
    meta = BatchMeta(
        example_index_B=np.array([2, 5, 1, -1], np.int32),
        example_id_B=np.array([102, 105, 101, -1]),
        visit_B=np.array([1, 1, 1, 0], np.int32),
        n_real=3,
    )
    stats = {
        "loss_sum": np.array([1.0, 2.0, 3.0, 0.0], np.float32),
        "n_tokens": np.array([2, 2, 4, 0], np.int32),
        "grad_norm": np.ones(4, np.float32),
        "grad_norm_head": np.ones(4, np.float32),
    }
    return meta, stats | columns


def test_columns_leave_filling_rows_out():
    meta, stats = batch()
    columns = columns_of(workspace([({0}, 1, 1)]), stats, meta, step=4, batch_index=7, n_parts=2)
    assert columns["example_id"].tolist() == [102, 105, 101]
    assert columns["microbatch"].tolist() == [0, 0, 1] and columns["row"].tolist() == [0, 1, 0]
    assert columns["batch_index"] == 7 and columns["loss_sum"].tolist() == [1, 2, 3]
    assert columns["grad_norm_head"].tolist() == [1, 1, 1]
    tied = columns_of(workspace([({0}, 1, 1)], tie=True), stats, meta, step=4, batch_index=7)
    assert np.isnan(tied["grad_norm_head"]).all() and tied["row"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["loss_sum", "grad_norm", "grad_norm_head"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_names_its_example(name, value):
    ws = workspace([({0}, 1, 1)])
    meta, stats = batch(**{name: np.array([1, value, 1, 1], np.float32)})
    with pytest.raises(RunFailure, match=f"update 9, example 105 .s k5.: {name} is {value}"):
        columns_of(ws, stats, meta, step=9, batch_index=0)
    meta, stats = batch(**{name: np.array([1, 1, 1, value], np.float32)})
    columns_of(ws, stats, meta, step=9, batch_index=0)  # a filling row does not matter


def test_mean_loss_is_over_examples_and_ignores_batches():
    def columns(*rows):
        ids, sums, counts = (np.array(values) for values in zip(*rows, strict=True))
        return {"example_id": ids, "loss_sum": sums, "n_tokens": counts}

    rows = [(5, 1.0, 2), (3, 9.0, 3), (8, 0.1, 1), (4, 0.7, 7)]
    ids = np.array([3, 4, 8])
    wanted = (9 / 3 + 0.1 + 0.1) / 3
    assert mean_loss([columns(*rows)], ids) == pytest.approx(wanted)
    assert mean_loss([columns(*rows)], ids) == mean_loss(
        [columns(*rows[2:]), columns(*rows[1::-1])], ids
    )
    assert np.isnan(mean_loss([columns(*rows)], np.array([], int)))
