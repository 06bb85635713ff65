"""Answers in kind, and answers of those that disagree, against loops."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.answers import base_in_kind, given_now, rival_predicted

TEXT = st.sampled_from(["Red", "red.", "blue", "Blue!", "green", ""])


def clean(text):
    return text.lower().strip(".!")


@given(
    rows=st.lists(
        st.tuples(TEXT, st.lists(TEXT, max_size=2), TEXT, TEXT, st.booleans()),
        min_size=1,
        max_size=6,
    ),
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
            {
                "example_id": i,
                "point": point,
                "mode": "greedy",
                "prediction": said,
                "correct": exact,
            }
            for i, row in enumerate(rows)
            for point, said, exact in (("base", row[2], False), ("final", row[3], row[4]))
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
        rivals = [rows[j] for j in near[i] if clean(rows[j][0]) != clean(row[0])]
        texts, learned = {clean(rival[0]) for rival in rivals}, any(rival[4] for rival in rivals)
        if near[i]:
            expected[i, "base"] = clean(row[2]) in texts
            expected[i, "final"] = clean(row[3]) in texts or learned
    assert found == expected


def test_the_answer_given_now_beside_the_bases():
    rows = [
        (1, "base", "greedy", "Rome.", 0.9),
        (1, "final", "greedy", "rome", 0.6),
        (1, "final", "sample", "Oslo", 0.1),
        (2, "base", "greedy", "Rome", 0.9),
        (2, "final", "greedy", "Oslo", 0.7),
        (3, "final", "greedy", "Oslo", 0.7),
        (4, "base", "greedy", None, None),
        (4, "final", "greedy", "Oslo", None),
    ]
    names = ("example_id", "point", "mode", "prediction", "confidence")
    found = given_now(pl.DataFrame(rows, schema=names, orient="row"))
    final = found.filter(point="final").sort("example_id").drop("point")
    assert final.rows() == [(1, 0.6, True), (2, 0.7, False), (3, 0.7, None), (4, None, None)]
    base = found.filter(point="base").sort("example_id")
    assert base["keeps_base_answer"].to_list() == [True, True, None]
