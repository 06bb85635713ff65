"""Controls that match the accused, and the comparison of what leaving them out spares."""

import numpy as np
import polars as pl
import pytest

from ilp_jax.analysis import leave_out


@pytest.fixture(scope="module")
def later():
    rng = np.random.default_rng(0)
    n = 200
    return pl.DataFrame(
        {
            "example_id": np.arange(n),
            "source": rng.choice(["a", "b"], n),
            "visits": rng.choice(["2:1", "2:10", "2:1 3:1"], n),
            "relation": rng.choice(["city", "job", "pet"], n),
            "norm": rng.integers(10, size=n),
            "tokens": rng.integers(2, 4, n),
        }
    )


def test_matched(later):
    accused, excluded = list(range(0, 40, 2)), [1, 3]
    draws = [leave_out.matched(later, accused, excluded, seed) for seed in range(3)]
    of = dict(zip(later["example_id"], later.drop("example_id").rows(named=True), strict=True))
    for controls in draws:
        assert len(set(controls)) == len(controls) == len(accused)
        assert not set(controls) & {*accused, *excluded}
        for one, control in zip(accused, controls, strict=True):
            assert of[one]["source"] == of[control]["source"]
            assert of[one]["visits"] == of[control]["visits"]
        alike = leave_out.match_quality(later, accused, controls)
        assert alike["source"] == alike["visits"] == pytest.approx(1.0)
        assert alike["relation"] > 0.8
        random = later.filter(~pl.col("example_id").is_in(accused))["example_id"].sample(20, seed=1)
        by_chance = leave_out.match_quality(later, accused, random.to_list())
        assert alike["norm"] >= by_chance["norm"]
    assert len({tuple(one) for one in draws}) == 3
    assert leave_out.matched(later, accused, excluded, 1) == draws[1]
    # No more controls than rows that are left, and none twice.
    few = leave_out.matched(later, list(range(150)), [], 0)
    assert sorted(few) == list(range(150, 200))


def test_later_rows():
    examples = pl.DataFrame(
        {
            "example_id": [1, 2, 3],
            "source": ["a", "a", "b"],
            "prompt": ["the city of bo", "the city of al", "why"],
            "n_target_tokens": [2, 3, 4],
        }
    )
    plan = pl.DataFrame({"example_id": [1, 2, 3, 2], "stage": [1, 2, 3, 3]})
    stats = pl.DataFrame(
        {
            "example_id": [1, 2, 2, 2, 3],
            "kind": ["train"] * 5,
            "stage": [1, 2, 2, 3, 3],
            "grad_norm": [9.0, 1.0, 2.0, 3.0, 5.0],
        }
    )
    rows = leave_out.later_rows(examples, plan, stats, 1)
    assert rows.drop("relation").rows() == [(2, "a", "2:2 3:1", 0, 3), (3, "b", "3:1", 5, 4)]
    assert rows["relation"].n_unique() == 2
    named = leave_out.later_rows(examples, plan, stats, 1, {2: "city", 3: "none"})
    assert named["relation"].to_list() == ["city", "none"]


def arms(none, accused, controls, n=60, seed=0):
    """Rises of each arm's rows around given means, alike over arms."""
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1, n)
    means = {"none": none, "accused": accused}
    means |= {f"control_{i}": mean for i, mean in enumerate(controls)}
    return pl.concat(
        pl.DataFrame(
            {
                "arm": [name] * n,
                "example_id": np.arange(n),
                "loss": 2 + base + mean,
                "correct": np.arange(n) % 10 >= mean * 2,
                "loss_before": np.full(n, 2.0),
                "correct_before": [True] * n,
            }
        )
        for name, mean in means.items()
    )


def test_compare():
    rows = arms(none=3.0, accused=1.0, controls=(2.5, 2.9))
    found = leave_out.compare(rows, seed=0)
    loss, lost = found["loss"], found["lost"]
    assert (found["n"], found["controls"]) == (60, 2)
    assert loss["fall"]["accused"] == pytest.approx(2.0)
    assert loss["fall"]["control"] == pytest.approx(0.3)
    assert loss["difference"] == pytest.approx(1.7)
    low, high = loss["interval"]
    assert 1.4 < low < 1.7 < high < 2.0  # between the two draws
    assert lost["none"] == pytest.approx(0.6) and lost["accused"] == pytest.approx(0.2)
    assert lost["each_control"] == pytest.approx([0.5, 0.6])
    assert lost["interval"][0] > 0.15
    # The accused are no worse than controls: the interval holds zero.
    noise = np.random.default_rng(1).normal(0, 1, len(rows))
    null = arms(3.0, 2.5, (2.5,) * 4).with_columns(loss=pl.col("loss") + 1.0)
    noise = np.random.default_rng(1).normal(0, 1, len(null))
    found = leave_out.compare(null.with_columns(loss=pl.col("loss") + noise), seed=0)
    low, high = found["loss"]["interval"]
    assert low < 0 < high
