"""Calibration error by brute force, and of resamples by repeating rows."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis import calibration
from ilp_jax.stats.schema import CAUSES

ROWS = st.lists(
    st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 4)),
    max_size=50,
    unique_by=lambda row: row[0],  # of equal probabilities the order is the rows'
)


def by_hand(p, right, bins=10):
    """Sorted rows dealt into bins by numpy; the mean gap, weighted by rows."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    total = 0.0
    for part in np.array_split(np.array(order, int), bins):
        if len(part):
            told = sum(p[i] for i in part) / len(part)
            total += len(part) * abs(told - sum(right[i] for i in part) / len(part))
    return total / len(p)


def columns(rows):
    p, right, times = zip(*rows, strict=True)
    return np.array(p), np.array(right), np.array(times)


@given(ROWS)
def test_error_by_hand(rows):
    if not rows:
        assert calibration.ece(np.array([]), np.array([], bool)) is None
        return
    p, right, _ = columns(rows)
    assert calibration.ece(p, right) == pytest.approx(by_hand(p, right), abs=1e-12)
    bins = calibration.reliability(p, right)
    assert sum(one["n"] for one in bins) == len(p)
    assert max(one["n"] for one in bins) - min(one["n"] for one in bins) <= 1
    assert [one["told"] for one in bins] == sorted(one["told"] for one in bins)


@given(ROWS)
def test_a_resample_is_repeated_rows(rows):
    if not rows:
        return
    p, right, times = columns(rows)
    # Two rows to a unit: what is drawn is units.
    unit_N = np.arange(len(p)) // 2
    weights_BxU = np.stack([times[::2], np.zeros_like(times[::2]), np.ones_like(times[::2])])
    found = calibration.resampled_ece(p, right, unit_N, weights_BxU.astype(np.float32))
    repeated = [i for i in range(len(p)) for _ in range(times[::2][i // 2])]
    if repeated:
        assert found[0] == pytest.approx(by_hand(p[repeated], right[repeated]), abs=1e-9)
    assert np.isnan(found[1]) and (repeated or np.isnan(found[0]))
    assert found[2] == pytest.approx(by_hand(p, right), abs=1e-9)


def test_parts_of_resamples_are_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    p, right, units = rng.random(40), rng.random(40) < 0.5, rng.integers(6, size=40)
    weights = rng.integers(3, size=(25, 6)).astype(np.float32)
    whole = calibration.resampled_ece(p, right, units, weights)
    monkeypatch.setattr(calibration, "_AT_ONCE", 1)
    assert np.array_equal(calibration.resampled_ece(p, right, units, weights), whole)


def test_the_told_causes_score_counts_or_the_highest_of_a_row_left_unattributed():
    rows = pl.DataFrame(
        {
            "cause": [CAUSES[1], "unattributed", CAUSES[2]],
            "planted": [CAUSES[1], CAUSES[0], CAUSES[4]],
            **{f"score_{c}": [i / 10, 0.3 - i / 20, 0.2] for i, c in enumerate(CAUSES)},
        }
    )
    p, right = calibration.told_with(rows, "planted")
    assert p.tolist() == [0.1, 0.3, 0.2] and right.tolist() == [True, True, False]
