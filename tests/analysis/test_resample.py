"""The two-level bootstrap against one written as loops."""

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ilp_jax.analysis import resample
from ilp_jax.analysis.planted import load_planted


def by_loops(world_U, resamples, rng):
    worlds = sorted(set(world_U))
    out = np.zeros((resamples, len(world_U)))
    for b in range(resamples):
        for world in rng.choice(worlds, size=len(worlds)):
            own = [i for i, w in enumerate(world_U) if w == world]
            for i in rng.choice(own, size=len(own)):
                out[b, i] += 1
    return out


def test_draws_spread_as_the_loops_do():
    world_U = np.array([0] * 6 + [1] * 3 + [2] * 9)
    values = np.random.default_rng(1).normal(size=len(world_U)) + 2.0 * world_U
    drawn = resample.draw(world_U, 4000, seed=0)
    looped = by_loops(world_U, 4000, np.random.default_rng(7))

    def means(weights):
        return weights @ values / weights.sum(axis=1)

    here, there = means(drawn), means(looped)
    # Standard errors of a mean and of a standard deviation over 4000 resamples: 2% and less.
    assert here.mean() == pytest.approx(there.mean(), abs=0.1 * there.std())
    assert here.std() == pytest.approx(there.std(), rel=0.06)
    one = resample.draw(np.zeros(12, int), 4000, seed=0)
    assert (one.sum(axis=1) == 12).all()
    # Of one world: the plain bootstrap, whose weights have the variance 1 - 1/n.
    assert one.var(axis=0) == pytest.approx(np.full(12, 11 / 12), rel=0.15)


def test_worlds_come_whole_and_draws_are_of_the_seed():
    world_U = np.repeat([0, 1, 2], [4, 1, 2])
    drawn = resample.draw(world_U, 300, seed=3)
    sums = np.stack([drawn[:, world_U == w].sum(axis=1) for w in range(3)])
    times = sums / np.array([[4], [1], [2]])
    assert (times == times.round()).all() and (times.sum(axis=0) == 3).all()
    assert np.array_equal(drawn, resample.draw(world_U, 300, seed=3))
    assert not np.array_equal(drawn, resample.draw(world_U, 300, seed=4))


def test_families_of_a_world_share_its_groups(planted_run):
    runs = [
        load_planted(planted_run(name, n=4, world=world, family=family))
        for name, world, family in (("a", 5, "llama"), ("b", 5, "qwen2"), ("c", 6, "llama"))
    ]
    numbered, world_U = resample.with_units(runs)
    units = [set(run.verdicts["unit"]) for run in numbered]
    assert units[0] == units[1] and not units[0] & units[2]
    assert sorted(units[0] | units[2]) == list(range(len(world_U)))
    assert {int(world_U[unit]) for unit in units[0]} == {0}
    assert {int(world_U[unit]) for unit in units[2]} == {1}
    for run in numbered:
        pairs = run.verdicts.select("group_id", "unit").unique()
        assert pairs["unit"].n_unique() == pairs["group_id"].n_unique() == len(pairs)
        assert set(run.told["unit"]) <= set(run.verdicts["unit"])
    unknown = [dataclasses.replace(run, world=None) for run in runs]
    assert resample.with_units(unknown)[1].max() == 2


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 30), st.integers(1, 3)),
        elements=st.one_of(st.just(np.nan), st.floats(-1, 1)),
    )
)
def test_spread_is_numpys_percentiles(values):
    found = resample.spread(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = np.nanpercentile(values, [2.5, 97.5], axis=0).T
    for interval, expected in zip(found, known, strict=True):
        if np.isnan(expected[0]):
            assert interval is None
        else:
            assert interval == pytest.approx(expected.tolist(), abs=1e-12)
    assert resample.spread(values[:, 0]) == found[0]
