"""The screen against sums over every outcome of a draw."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.screened import figures, screened
from ilp_jax.analysis.unlearned import unlearned
from ilp_jax.detect.screen import candidates, sure_probability, unlearned_probability

DETECT = {
    "n_samples": 5,
    "pass_threshold": 0.2,
    "screen_probability": 0.001,
    "sampled_points": ("final",),
    "exact_match_max_tokens": 16,
    "temperature": 0.7,
    "rouge_l_threshold": 0.4,
}


def tail(p, n, threshold):
    """P(share of right answers < threshold), outcome by outcome."""
    return math.fsum(
        math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if k / n < threshold
    )


SETTINGS = st.fixed_dictionaries(
    {
        "n_samples": st.integers(1, 20),
        "pass_threshold": st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]),
        "screen_probability": st.sampled_from([1e-6, 0.001, 0.05, 0.5]),
    }
)


@given(st.floats(0, 1), SETTINGS)
def test_the_tail_is_that_of_every_outcome(p, detect):
    wanted = tail(p, detect["n_samples"], detect["pass_threshold"])
    assert unlearned_probability(np.array([p]), detect)[0] == pytest.approx(wanted, abs=1e-12)


@given(SETTINGS)
def test_the_bound_is_where_the_tail_is_as_asked(detect):
    bound, n, threshold = sure_probability(detect), detect["n_samples"], detect["pass_threshold"]
    assert tail(bound, n, threshold) == pytest.approx(detect["screen_probability"], rel=1e-6)
    assert tail(bound + 0.01 * (1 - bound), n, threshold) < detect["screen_probability"]


def test_the_default_is_three_quarters():
    assert sure_probability(DETECT) == pytest.approx(1 - 0.001 ** (1 / 5))
    assert sure_probability(DETECT) == pytest.approx(0.75, abs=0.002)


def answers(rows):
    """Answers of one point from (p, greedy right, right ones among those drawn)."""
    out = []
    for i, (p, right, drawn) in enumerate(rows):
        common = {"example_id": i, "point": "final", "seed": None, "correct": None}
        common |= {"run": 0, "prompt_variant": 0}
        law = math.log(p) if p else -math.inf
        out.append(common | {"mode": "greedy", "correct": right, "gold_logprob": law})
        out.append(common | {"mode": "sample", "gold_logprob": law, "temperature": 0.7})
        for correct in drawn:
            out.append(common | {"mode": "sample", "seed": 0, "correct": correct})
    schema = {
        "example_id": pl.Int64,
        "point": pl.String,
        "mode": pl.String,
        "run": pl.Int32,
        "prompt_variant": pl.Int32,
        "temperature": pl.Float64,
        "prediction": pl.String,
        "seed": pl.Int64,
        "correct": pl.Boolean,
        "gold_logprob": pl.Float64,
    }
    return pl.DataFrame(out, schema=schema)


ROWS = [(1.0, True, []), (0.8, True, []), (0.76, False, []), (0.7, True, []), (0.0, False, [])]


def test_candidates():
    assert candidates(answers(ROWS), DETECT).to_list() == [2, 3, 4]
    # Without a screen all are drawn, the certain ones too.
    everything = DETECT | {"screen_probability": 0.0}
    assert candidates(answers(ROWS), everything).to_list() == [0, 1, 2, 3, 4]
    nothing_sure = DETECT | {"screen_probability": 1.0}
    assert candidates(answers(ROWS), nothing_sure).to_list() == [2, 4]


def verdicts(rows, detect):
    n = len(rows)
    columns = {"n_target_tokens": 2, "marks": "{}", "response": "a"}
    examples = pl.DataFrame({"example_id": range(n)}).with_columns(
        *(pl.lit(value).alias(name) for name, value in columns.items()),
        pl.lit(None, pl.String).alias("messages"),
    )
    found = unlearned(answers(rows), examples, detect).filter(pl.col("detector") == "sampled")
    return dict(found.select("example_id", "unlearned").iter_rows())


def test_rows_left_out_count_as_learned_where_answers_are_drawn():
    drawn = [
        (1.0, True, []),
        (0.8, True, []),
        (0.7, True, [True] * 4 + [False]),
        (0, False, [False] * 5),
    ]
    assert verdicts(drawn, DETECT) == {0: False, 1: False, 2: False, 3: True}
    # All surely learned: nothing is drawn, and the verdicts are there.
    assert verdicts(drawn[:2], DETECT) == {0: False, 1: False}
    # Points at which nothing was to be drawn, and runs from before there was a screen.
    assert verdicts(drawn[:2], DETECT | {"sampled_points": ("base",)}) == {}
    del (old := dict(DETECT))["screen_probability"]
    assert verdicts(drawn, old) == {2: False, 3: True}


def test_a_row_that_is_not_sure_and_not_drawn_has_no_verdict():
    assert verdicts([(0.7, True, [])], DETECT) == {}


def test_what_the_screen_may_have_cost():
    (cell,) = figures(answers(ROWS[:2] + [(0.7, True, [True] * 5)]), DETECT)
    assert (cell["point"], cell["n"], cell["probability"]) == ("final", 2, 0.001)
    assert cell["expected_unlearned"] == pytest.approx(0.2**5)
    assert figures(answers(ROWS), DETECT | {"sampled_points": ()}) == []
    assert screened(answers(ROWS[:2]), DETECT)["p"].to_list() == pytest.approx([1.0, 0.8])
