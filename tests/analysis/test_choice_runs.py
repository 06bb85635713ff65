"""The study's multiple-choice detection against loops over runs and over all outcomes."""

import itertools
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax

from ilp_jax.analysis.choice_runs import candidates, corrected, guesser, per_row, summarise

DETECT = {"pass_threshold": 0.2, "top_k": 3}
LETTERS = "ABCD"


def frames(rows, n_options=4, temperature=0.5, marks=None):
    """Rows: of each example, of each run, the option drawn and the mean log-likelihoods."""
    runs = [
        {
            "example_id": i,
            "point": "final",
            "mode": "choice",
            "run": r,
            "prompt_variant": 3,
            "seed": 0,
            "temperature": temperature,
            "prediction": LETTERS[drawn],
            "correct": drawn == i % n_options,
            "confidence": float(softmax(np.array(logprobs) / temperature)[drawn]),
            "options": list(LETTERS[:n_options]),
            "option_logprob_mean": [float(value) for value in logprobs],
        }
        for i, of_row in enumerate(rows)
        for r, (drawn, logprobs) in enumerate(of_row)
    ]
    # The deterministic question is no run.
    runs.append(runs[0] | {"seed": None, "prompt_variant": 0, "correct": False})
    examples = {
        "example_id": range(len(rows)),
        "answer_index": [i % n_options for i in range(len(rows))],
        "marks": marks or ["{}"] * len(rows),
    }
    inference = pl.DataFrame(runs, schema_overrides={"seed": pl.Int64}, infer_schema_length=None)
    return inference.sample(fraction=1, shuffle=True, seed=0), pl.DataFrame(examples)


LOGPROBS = st.lists(st.floats(-5, 0), min_size=4, max_size=4)
RUNS = st.lists(st.tuples(st.integers(0, 3), LOGPROBS), min_size=5, max_size=5)


@given(st.lists(RUNS, min_size=1, max_size=5))
def test_rows_follow_their_definitions(rows):
    found = per_row(*frames(rows), 0.2)
    assert found["example_id"].to_list() == list(range(len(rows)))
    for i, row in enumerate(found.iter_rows(named=True)):
        right = [drawn == i % 4 for drawn, _ in rows[i]]
        assert row["n_runs"] == 5 and row["n_options"] == 4 and row["options"] == "given"
        assert row["n_correct"] == sum(right) and row["pass_at_n"] == sum(right) / 5
        assert row["unlearned"] is (sum(right) == 0)
        chances = [softmax(np.array(logprobs) / 0.5) for _, logprobs in rows[i]]
        confidence = [p[drawn] for p, (drawn, _) in zip(chances, rows[i], strict=True)]
        assert row["best_of_n"] is right[int(np.argmax(confidence))]
        wrong = Counter(drawn for drawn, _ in rows[i] if drawn != i % 4)
        assert row["same_wrong"] == pytest.approx(max(wrong.values(), default=0) / 5)
        mean = np.mean([softmax(logprobs)[i % 4] for _, logprobs in rows[i]])
        assert row["gold_probability"] == pytest.approx(mean)
        p = [one[i % 4] for one in chances]
        assert row["chance_unlearned"] == pytest.approx(np.prod([1 - one for one in p]))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.6, 1.0])
def test_the_chance_of_a_verdict_sums_over_all_outcomes(threshold):
    rng = np.random.default_rng(0)
    rows = [[(0, rng.normal(size=4)) for _ in range(5)]]
    found = per_row(*frames(rows), threshold)["chance_unlearned"][0]
    p = [softmax(logprobs / 0.5)[0] for _, logprobs in rows[0]]
    wanted = sum(
        np.prod([one if hit else 1 - one for one, hit in zip(p, hits, strict=True)])
        for hits in itertools.product([True, False], repeat=5)
        if sum(hits) / 5 < threshold
    )
    assert found == pytest.approx(wanted)


def test_a_uniform_guesser():
    same = pl.Series([4] * 3), pl.Series([5] * 3)
    assert guesser(*same, 0.2) == pytest.approx(0.75**5) == pytest.approx(0.2373, abs=1e-4)
    mixed = pl.Series([4, 2]), pl.Series([5, 5])
    assert guesser(*mixed, 0.2) == pytest.approx((0.75**5 + 0.5**5) / 2)
    # Of ten runs, 1 right is below 0.2 as well.
    wanted = 0.75**10 + 10 * 0.25 * 0.75**9
    assert guesser(pl.Series([4]), pl.Series([10]), 0.2) == pytest.approx(wanted)
    assert corrected(np.array([0.25, 1.0, 0.0]), np.full(3, 0.25)) == pytest.approx([0, 1, -1 / 3])


def test_guessing_gives_the_guessers_figures():
    rng = np.random.default_rng(3)
    rows = [[(int(rng.integers(4)), [0.0] * 4) for _ in range(5)] for _ in range(400)]
    found = summarise(per_row(*frames(rows), 0.2), DETECT)
    assert found["guesser"] == pytest.approx(found["exact"]) == pytest.approx(0.75**5)
    # Within four standard errors: the number right is binomial.
    flagged = found["unlearned"]
    assert flagged["share"] == pytest.approx(0.75**5, abs=4 * np.sqrt(0.237 * 0.763 / 400))
    assert flagged["n"] == 400
    score = found["chance_corrected"]
    assert score["mean"] == pytest.approx(0, abs=4 * np.sqrt(0.25 * 0.75 / 2000) / 0.75)
    scores = [(sum(d == i % 4 for d, _ in row) / 5 - 0.25) / 0.75 for i, row in enumerate(rows)]
    wanted = stats.t.interval(0.95, 399, np.mean(scores), stats.sem(scores))
    assert score["interval"] == pytest.approx(wanted)
    assert found["gold_probability"]["mean"] == pytest.approx(0.25)


def test_candidates_have_the_most_consistent_errors():
    even = [0.0] * 4
    low, lower = [-1.0, 0, 0, 0], [-2.0, 0, 0, 0]  # The response of rows 0, 4, 8, ... is A.
    right = [(0, even)] * 5
    rows = [right] * 24
    rows[0] = [(1, even)] * 3 + [(2, even)] * 2
    rows[4] = [(1, even)] * 4 + [(2, even)]
    rows[8] = [(1, low)] * 4 + [(3, low)]
    rows[12] = [(3, lower)] * 4 + [(2, lower)]
    rows[16] = [(1, even)] * 4 + [(2, even)]
    rows[20] = [(1, lower)] * 4 + [(0, lower)]  # Once right: not unlearned.
    found = per_row(*frames(rows), 0.2).filter(pl.col("example_id") % 4 == 0)
    assert candidates(found, 9)["example_id"].to_list() == [12, 8, 4, 16, 0]
    assert candidates(found, 3)["example_id"].to_list() == [12, 8, 4]
    summary = summarise(found, DETECT)["candidates"]
    assert summary == {"k": 3, "n": 3, "least_same_wrong": 0.8}


def test_options_made_by_us_are_marked():
    rows = [[(0, [0.0] * 4)] * 5] * 2
    marks = ["{}", '{"distractors": "similar_questions"}']
    found = per_row(*frames(rows, marks=marks), 0.2)
    assert found["options"].to_list() == ["given", "similar_questions"]


def test_no_runs_no_figures():
    inference, examples = frames([[(0, [0.0] * 4)] * 5])
    found = per_row(inference.filter(pl.col("seed").is_null()), examples, 0.2)
    assert found.is_empty() and summarise(found, DETECT) is None


def test_temperature_zero_is_the_likeliest_option():
    rows = [[(0, [0.0, -1.0, -1.0, -1.0])] * 5]
    inference, examples = frames(rows)
    found = per_row(inference.with_columns(temperature=pl.lit(0.0)), examples, 0.2)
    assert found["chance_unlearned"].to_list() == [0.0]
