"""Where groups can be kept apart they are, whatever is arranged anew; no visit is lost."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.data.apart import kept_apart


@st.composite
def epochs(draw):
    """Visits in some order; groups of rows, each visited once or several times."""
    rows, groups, n_rows = [], [], 0
    most = draw(st.integers(1, 3))
    for group, n in enumerate(draw(st.lists(st.integers(1, 8), max_size=7))):
        for _ in range(n):
            visits = draw(st.integers(1, most))
            rows += [n_rows] * visits
            groups += [group] * visits
            n_rows += 1
    n_free = draw(st.integers(0 if rows else 1, 12))
    rows, groups = rows + [n_rows] * n_free, groups + [-1] * n_free
    order = draw(st.permutations(range(len(rows))))
    return np.array(rows)[order], np.array(groups)[order]


def can_be_apart(group_V, batch_size):
    """Gale (1957) and Ryser (1957): no k batches hold more than groups give to k batches."""
    sizes = [int((group_V == group).sum()) for group in set(group_V.tolist()) if group >= 0]
    sizes += [1] * int((group_V < 0).sum())
    room = [min(batch_size, len(group_V) - at) for at in range(0, len(group_V), batch_size)]
    return all(
        sum(room[:k]) <= sum(min(size, k) for size in sizes) for k in range(1, len(room) + 1)
    ) and max(sizes) <= len(room)


def clashes(order, row_V, group_V, batch_size):
    """Batches and groups of which two different rows are there."""
    found = 0
    for at in range(0, len(order), batch_size):
        batch = order[at : at + batch_size]
        for group in set(group_V[batch].tolist()) - {-1}:
            found += len(set(row_V[batch][group_V[batch] == group].tolist())) > 1
    return found


def shuffled(k, n):
    return np.random.default_rng(k).permutation(n)


@settings(deadline=None, max_examples=150)
@given(epochs(), st.integers(1, 6), st.integers(0, 5))
def test_groups_are_apart_whenever_they_can_be(epoch, batch_size, every):
    row_V, group_V = epoch
    order = kept_apart(row_V, group_V, batch_size, every, shuffled)
    assert sorted(order.tolist()) == list(range(len(row_V)))
    found = clashes(order, row_V, group_V, batch_size)
    if can_be_apart(group_V, batch_size):
        assert not found
    # To arrange anew never makes worse what the first arrangement found.
    first = kept_apart(row_V, group_V, batch_size)
    if not clashes(first, row_V, group_V, batch_size):
        assert not found


@pytest.mark.parametrize("batch_size", [2, 3])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 1), (2, 2), (3, 1), (2, 2, 2), (3, 2, 1)])
def test_the_oracle_agrees_with_trying_everything(sizes, batch_size):
    group_V = np.repeat(np.arange(len(sizes)), sizes)
    row_V = np.arange(len(group_V))
    tried = map(np.array, itertools.permutations(row_V.tolist()))
    apart = any(not clashes(order, row_V, group_V, batch_size) for order in tried)
    assert apart == can_be_apart(group_V, batch_size)


def test_visits_of_one_row_share_batches_where_its_group_has_too_few():
    # Three rows of four visits in three batches: each row must fill one.
    row_V, group_V = np.tile(np.arange(3), 4), np.zeros(12, int)
    order = kept_apart(row_V, group_V, 4)
    assert not clashes(order, row_V, group_V, 4)


def test_what_is_left_is_arranged_anew():
    row_V, group_V = np.arange(40), np.where(np.arange(40) < 6, 0, -1)
    once = kept_apart(row_V, group_V, 4)
    order = kept_apart(row_V, group_V, 4, 2, shuffled)
    assert order[:8].tolist() == once[:8].tolist()
    assert order[8:].tolist() != once[8:].tolist()
