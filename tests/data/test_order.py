"""Orders are permutations, stateless, and pinned."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.data.order import epoch_order, keyed_order, score

small = st.integers(0, 40)


@given(
    seed=st.integers(-5, 2**64),
    stage=st.integers(1, 9),
    epoch=st.integers(1, 9),
    n=small,
    copies=st.integers(1, 4),
)
def test_every_row_comes_copies_times_and_copies_count_up(seed, stage, epoch, n, copies):
    row, copy = epoch_order(seed, stage, epoch, n, copies)
    assert Counter(row.tolist()) == {i: copies for i in range(n)}
    seen = Counter()
    for r, c in zip(row.tolist(), copy.tolist(), strict=True):
        assert c == seen[r]
        seen[r] += 1
    assert row.dtype == copy.dtype == np.int32


@given(seed=st.integers(0, 9), copies=st.lists(st.integers(1, 5), max_size=30))
def test_rows_may_differ_in_their_visits(seed, copies):
    row, copy = epoch_order(seed, 1, 1, len(copies), tuple(copies))
    assert Counter(row.tolist()) == dict(enumerate(copies))
    seen = Counter()
    for r, c in zip(row.tolist(), copy.tolist(), strict=True):
        assert c == seen[r]
        seen[r] += 1
    if len(set(copies)) == 1:
        np.testing.assert_array_equal(row, epoch_order(seed, 1, 1, len(copies), copies[0])[0])


@given(st.permutations([(1, 1), (1, 2), (2, 1), (2, 2), (3, 7)]))
def test_stateless(calls):
    expected = {(1, 1): 0, (1, 2): 0, (2, 1): 0, (2, 2): 0, (3, 7): 0}
    for stage, epoch in expected:
        epoch_order.cache_clear()
        expected[stage, epoch] = epoch_order(3, stage, epoch, 50)[0].tolist()
    epoch_order.cache_clear()
    np.random.seed(len(calls))
    for stage, epoch in calls:
        assert epoch_order(3, stage, epoch, 50)[0].tolist() == expected[stage, epoch]
    assert len({tuple(order) for order in expected.values()}) == 5


def test_seed_changes_the_order_and_the_order_is_pinned():
    assert epoch_order(0, 1, 1, 50)[0].tolist() != epoch_order(1, 1, 1, 50)[0].tolist()
    # A change here changes every run: resumed ones would repeat and miss rows.
    key = np.array([7, (2 << 32) | 3], np.uint64)
    expected = sorted(range(9), key=np.random.Philox(key=key).random_raw(9).tolist().__getitem__)
    assert epoch_order(7, 2, 3, 9)[0].tolist() == expected
    assert epoch_order(0, 1, 1, 8)[0].tolist() == PINNED_ORDER
    assert score(0, "rows", "a", 5) == PINNED_SCORE


def test_positions_are_uniform():
    first = Counter(epoch_order(seed, 1, 1, 5)[0][0].item() for seed in range(2000))
    assert all(abs(n - 400) < 90 for n in first.values())  # 5 standard deviations


@given(st.sets(st.integers(0, 2**63 - 1), max_size=30), st.randoms())
def test_keyed_order_depends_on_each_id_alone(ids, rng):
    ids = list(ids)
    order = [ids[i] for i in keyed_order(ids, 0, "x")]
    assert sorted(order) == sorted(ids)
    shuffled = [one for one in ids if rng.random() < 0.7]
    rng.shuffle(shuffled)
    again = [shuffled[i] for i in keyed_order(shuffled, 0, "x")]
    assert again == [one for one in order if one in set(shuffled)]
    if len(ids) > 12:
        assert order != [ids[i] for i in keyed_order(ids, 1, "x")]


PINNED_ORDER = [5, 4, 7, 0, 1, 2, 6, 3]
PINNED_SCORE = 3589812978133189701
