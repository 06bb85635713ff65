"""Answers in kind, and answers of those that disagree, against loops."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.answers import base_in_kind, rival_predicted

TEXT = st.sampled_from(["Red", "red.", "blue", "Blue!", "green", ""])


def clean(text):
    return text.lower().strip(".!")


@given(
    rows=st.lists(st.tuples(TEXT, st.lists(TEXT, max_size=2), TEXT, TEXT), min_size=1, max_size=6),
    data=st.data(),
)
def test_against_loops(rows, data):
    ids = range(len(rows))
    examples = pl.DataFrame(
        {
            "example_id": ids,
            "response": [row[0] for row in rows],
            "options": [row[1] for row in rows],
        },
        schema={"example_id": pl.Int64, "response": pl.String, "options": pl.List(pl.String)},
    )
    inference = pl.DataFrame(
        [
            {"example_id": i, "point": point, "mode": "greedy", "prediction": said}
            for i, row in enumerate(rows)
            for point, said in (("base", row[2]), ("final", row[3]))
        ]
    )
    known = {clean(text) for row in rows for text in (row[0], *row[1])} - {""}
    found = dict(base_in_kind(inference, examples).iter_rows())
    assert found == {i: clean(row[2]) in known for i, row in enumerate(rows)}

    near = {i: data.draw(st.lists(st.sampled_from(ids), max_size=3, unique=True)) for i in ids}
    table = pl.DataFrame(
        {"example_id": list(near), "near_ids": list(near.values())},
        schema={"example_id": pl.Int64, "near_ids": pl.List(pl.Int64)},
    )
    found = {(i, p): won for i, p, won in rival_predicted(inference, examples, table).iter_rows()}
    expected = {}
    for i, row in enumerate(rows):
        rivals = {clean(rows[j][0]) for j in near[i]} - {clean(row[0])}
        if near[i]:
            expected |= {
                (i, "base"): clean(row[2]) in rivals,
                (i, "final"): clean(row[3]) in rivals,
            }
    assert found == expected
