"""Scores against scikit-learn's, on random tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from ilp_jax.analysis import confusion
from ilp_jax.analysis.confusion import TOLD, TRUE
from ilp_jax.stats.schema import CAUSES

ROWS = st.lists(
    st.tuples(st.integers(0, len(TRUE) - 1), st.integers(0, len(TOLD) - 1), st.integers(0, 3)),
    max_size=60,
)


def counted(rows):
    true, told, unit = (np.array([row[i] for row in rows], int) for i in range(3))
    return confusion.per_unit(true, told, unit, 4)


@given(ROWS)
def test_scores_are_scikit_learns_over_the_rows_of_the_causes(rows):
    units = counted(rows)
    counts = units.sum(axis=0)
    names = np.array([*TRUE, TOLD[-1]])
    true = names[[row[0] for row in rows]].tolist()
    told = np.array(TOLD)[[row[1] for row in rows]].tolist()
    whole = metrics.confusion_matrix(true, told, labels=names) if rows else np.zeros((8, 8))
    order = [*range(len(CAUSES)), len(names) - 1]
    assert (counts == whole[: len(TRUE)][:, order]).all()
    found = confusion.scores(counts)
    pairs = [pair for pair in zip(true, told, strict=True) if pair[0] in CAUSES]
    if not pairs:
        assert np.isnan(found["macro_f1"])
        return
    true, told = zip(*pairs, strict=True)
    present = [cause for cause in CAUSES if cause in true]
    known = {"labels": present, "average": None, "zero_division": 0}
    for name, score in (("f1", metrics.f1_score), ("recall", metrics.recall_score)):
        here = [found[name][CAUSES.index(cause)] for cause in present]
        assert here == pytest.approx(score(true, told, **known), abs=1e-12)
        assert np.isnan(found[name]).sum() == len(CAUSES) - len(present)
    macro = metrics.f1_score(true, told, labels=present, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(macro, abs=1e-12)
    given_ = [cause for cause in CAUSES if cause in told]
    precision = metrics.precision_score(
        true, told, labels=given_, average=None, zero_division=0
    ) if given_ else []  # fmt: skip
    here = [found["precision"][CAUSES.index(cause)] for cause in given_]
    assert here == pytest.approx(precision, abs=1e-12)


@given(ROWS, st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_weighted_units_are_repeated_rows(rows, times):
    units = counted(rows)
    weighted = (np.array([times], np.float32) @ units.reshape(4, -1)).reshape(1, 7, 6)
    repeated = counted([row for row in rows for _ in range(times[row[2]])]).sum(axis=0)
    assert (weighted[0] == repeated).all()
    for name, values in confusion.scores(weighted).items():
        assert np.array_equal(values[0], confusion.scores(repeated)[name], equal_nan=True)


@given(ROWS)
def test_unattributed_rows_are_counted_by_kind(rows):
    found = confusion.unattributed(counted(rows).sum(axis=0))
    kinds = {"causes": range(5), "fault": [5], "control": [6]}
    for kind, places in kinds.items():
        of = [row for row in rows if row[0] in places]
        assert found[kind] == (sum(row[1] == 5 for row in of), len(of))
