"""Shares, intervals and transitions against loops over rows."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.shares import interval, learned_and_lost, point_order, shares

SOURCES = ("a", "b")
VERDICT = st.sampled_from([True, False, None])
ROWS = st.lists(
    st.tuples(st.sampled_from(SOURCES), st.sampled_from([1, 2]), VERDICT, VERDICT),
    min_size=1,
    max_size=20,
)


def frames(rows):
    ids = range(len(rows))
    examples = pl.DataFrame({"example_id": ids, "source": [source for source, *_ in rows]})
    plan = pl.DataFrame({"example_id": ids, "stage": [stage for _, stage, *_ in rows]})
    found = pl.DataFrame(
        [
            {"example_id": i, "point": point, "detector": "choice", "unlearned": verdict}
            for i, (_, stage, end, final) in enumerate(rows)
            for point, verdict in ((f"stage_{stage}", end), ("final", final))
        ],
        schema_overrides={"unlearned": pl.Boolean},
    )
    return found, examples, plan


def test_the_interval_is_wilsons():
    # Wilson (1927): (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    z = 1.959963984540054
    for count, total in ((0, 40), (7, 40), (40, 40), (1, 3)):
        p = count / total
        centre = p + z**2 / (2 * total)
        spread = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
        expected = [(centre - spread) / (1 + z**2 / total), (centre + spread) / (1 + z**2 / total)]
        assert interval(count, total) == pytest.approx(expected, abs=1e-9)


@given(ROWS)
def test_shares_count_what_applies(rows):
    cells = shares(*frames(rows))
    by_key = {(c["point"], c["stage"], c["source"]): c for c in cells}
    assert len(by_key) == len(cells)
    for stage in (None, 1, 2):
        for source in (None, *SOURCES):
            known = [
                final
                for s, k, _, final in rows
                if final is not None and stage in (None, k) and source in (None, s)
            ]
            cell = by_key.get(("final", stage, source))
            if not known:
                assert cell is None
                continue
            assert (cell["n"], cell["unlearned"]) == (len(known), sum(known))
            assert cell["share"] == pytest.approx(sum(known) / len(known))


@given(ROWS)
def test_learned_and_lost_counts_transitions(rows):
    found = {(r["stage"], r["source"]): r for r in learned_and_lost(*frames(rows))}
    for stage in (1, 2):
        for source in (None, *SOURCES):
            of_cell = [
                (end, final)
                for s, k, end, final in rows
                if k == stage and source in (None, s) and None not in (end, final)
            ]
            if not of_cell:
                assert (stage, source) not in found
                continue
            row = found[stage, source]
            assert row["n"] == len(of_cell)
            assert row["learned"] == sum(not end for end, _ in of_cell)
            assert row["lost"] == sum(not end and final for end, final in of_cell)
            assert row["gained"] == sum(end and not final for end, final in of_cell)
            assert row["learned_final"] == sum(not final for _, final in of_cell)


def test_points_sort_as_a_run_meets_them():
    points = ["final", "stage_10", "converged", "stage_2", "epoch_2", "base"]
    expected = ["base", "epoch_2", "stage_2", "stage_10", "converged", "final"]
    assert sorted(points, key=point_order) == expected
