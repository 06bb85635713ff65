"""Agreement against scikit-learn, and its interval against resampling rows one by one."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, jaccard_score

from ilp_jax.analysis.overlap import jaccard, kappa, overlap, table_of

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


@given(PAIRS)
def test_equals_scikit_learn(pairs):
    one, other = np.array(pairs).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Where either is not defined.
        wanted = cohen_kappa_score(one, other), jaccard_score(one, other)
    table = table_of(one, other)
    if one.any() or other.any():
        assert jaccard(table) == pytest.approx(wanted[1])
    else:
        assert np.isnan(jaccard(table))
    if np.isnan(wanted[0]) or one.all() and other.all() or not (one.any() or other.any()):
        assert np.isnan(kappa(table))
    else:
        assert kappa(table) == pytest.approx(wanted[0])


def test_the_interval_is_that_of_resampled_rows():
    rng = np.random.default_rng(1)
    one = rng.random(80) < 0.4
    other = one ^ (rng.random(80) < 0.2)
    found = overlap(one, other, seed=0)
    values = []
    for _ in range(1500):
        rows = rng.integers(0, 80, 80)
        values.append(cohen_kappa_score(one[rows], other[rows]))
    wanted = np.percentile(values, [2.5, 97.5])
    assert found["kappa"]["value"] == pytest.approx(cohen_kappa_score(one, other))
    assert found["kappa"]["interval"] == pytest.approx(wanted, abs=0.04)
    assert found["agree"] == (one == other).mean() and found["n"] == 80
    assert found == overlap(one, other, seed=0) != overlap(one, other, seed=1)


def test_what_is_not_defined_is_null():
    none = overlap([False] * 4, [False] * 4, seed=0)
    assert none["jaccard"] == none["kappa"] == {"value": None, "interval": None}
    assert none["agree"] == 1
    every = overlap([True] * 4, [True] * 4, seed=0)
    assert every["jaccard"]["value"] == 1 and every["kappa"]["value"] is None
    assert overlap([], [], seed=0) is None
