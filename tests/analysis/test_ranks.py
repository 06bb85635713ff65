"""Ranks against scipy, bin by bin."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from ilp_jax.analysis.ranks import LEAST, ranks

BINS = ((1, 1), (2, 3), (4, 6), (7, 12), (13, 99))
VALUE = st.sampled_from([None, -1.5, 0.0, 2.0, 7.25])
ROWS = st.lists(st.tuples(st.sampled_from([1, 2, 3, 5, 8, 40]), VALUE, VALUE), max_size=40)


def frame(rows, point="final"):
    schema = {"response_tokens": pl.Int32, "a": pl.Float64, "b": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").select(
        pl.int_range(pl.len()).alias("example_id"), pl.lit(point).alias("point"), pl.all()
    )


def bin_of(tokens):
    return next(i for i, (low, high) in enumerate(BINS) if low <= tokens <= high)


def among(rows, own):
    """Rows that a row of this bin is ranked among."""
    low = high = own
    while True:
        found = [row for row in rows if low <= bin_of(row[0]) <= high]
        if len(found) >= LEAST or (low, high) == (0, 4):
            return found
        low, high = max(low - 1, 0), min(high + 1, 4)


@given(ROWS)
def test_ranks_are_mid_ranks_within_bins_of_length(rows):
    # Another point must not matter.
    found = ranks(pl.concat([frame(rows), frame(rows[::2], "base")]), ("a", "b"))
    assert len(found) == len(rows) + len(rows[::2])
    found = found.filter(pl.col("point") == "final").sort("example_id")
    for i, row in enumerate(rows):
        for column, name in ((1, "rank_a"), (2, "rank_b")):
            value = found[name][i]
            if row[column] is None:
                assert value is None
                continue
            values = [other[column] for other in among(rows, bin_of(row[0]))]
            values = [v for v in values if v is not None]
            expected = (rankdata(values)[values.index(row[column])] - 0.5) / len(values)
            assert value == pytest.approx(expected)


def test_thin_bins_borrow_and_thick_ones_do_not():
    # Ten rows of one token with values 0..9; one of two tokens between them.
    rows = [(1, float(i), None) for i in range(10)] + [(2, 4.5, None)]
    found = ranks(frame(rows), ("a",)).sort("example_id")["rank_a"].to_list()
    assert found[:10] == [pytest.approx((i + 0.5) / 10) for i in range(10)]
    assert found[10] == pytest.approx(5.5 / 11)
