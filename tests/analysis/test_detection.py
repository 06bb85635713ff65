"""The detection figures against loops over rows, on answers made by hand."""

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from ilp_jax.analysis import base_choices, detection
from ilp_jax.analysis.figures import mean_of, share_of

DETECT = {
    "temperature": 0.5,
    "n_samples": 5,
    "pass_threshold": 0.2,
    "normalise": False,
    "rouge_l_threshold": 0.4,
    "exact_match_max_tokens": 3,
    "top_k": 2,
    "stability_n_samples": [5, 10],
}
CONFIG = {"detect": DETECT, "diagnose": {"exist_accuracy": 0.8}, "seed": 0}
SCHEMA = {
    "example_id": pl.Int64,
    "point": pl.String,
    "step": pl.Int64,
    "mode": pl.String,
    "run": pl.Int32,
    "prompt_variant": pl.Int32,
    "temperature": pl.Float64,
    "seed": pl.Int64,
    "prediction": pl.String,
    "confidence": pl.Float64,
    "correct": pl.Boolean,
    "gold_logprob": pl.Float64,
    "options": pl.List(pl.String),
    "option_logprob_mean": pl.List(pl.Float64),
}
N = 12
RESPONSE = "The cat sat."


def known(n=N):
    """Rows 0-7 are short with four options (6 and 7 with ours); 8 and 9 long; 10, 11 summaries."""
    marks = ["{}"] * 6 + ['{"distractors": "base_answers"}'] * 2 + ["{}"] * 2
    marks += ['{"task": "summary"}'] * 2
    examples = pl.DataFrame(
        {
            "example_id": range(n),
            "n_target_tokens": [3] * 8 + [30] * 4,
            "response": [RESPONSE] * n,
            "messages": pl.Series([None] * n, dtype=pl.String),
            "answer_index": [0] * 8 + [None] * 4,
            "marks": marks,
        }
    )
    return examples, pl.DataFrame({"example_id": range(n), "stage": [1] * n})


def answers(point="final", step=9, drawn=True):
    rng = np.random.default_rng(step)
    common = {"point": point, "step": step, "run": 0, "prompt_variant": 0}
    rows = []
    for i in range(N + 1):  # The last is not trained.
        one = common | {"example_id": i}
        given = ["the cat sat", "cat", RESPONSE][i % 3]
        one_greedy = {"mode": "greedy", "prediction": given, "correct": given == RESPONSE}
        rows.append(one | one_greedy | {"gold_logprob": -0.1 * i, "temperature": 0.0})
        law = {"mode": "sample", "gold_logprob": -0.2 * i, "temperature": 0.5}
        rows += [one | law, one | law | {"temperature": 1.0, "gold_logprob": -99.0}]
        for run in range(5 * drawn):
            text = {"prediction": "x", "correct": bool(rng.random() < 0.3)}
            rows.append(one | law | text | {"run": run, "seed": 0, "gold_logprob": None})
        if i < 8:
            scores = rng.normal(size=4).tolist()
            asked = {"mode": "choice", "options": list("abcd"), "option_logprob_mean": scores}
            for variant in (0, 1, 2):
                right = bool(np.argmax(np.roll(scores, variant)) == 0)
                asked["option_logprob_mean"] = np.roll(scores, variant).tolist()
                rows.append(one | asked | {"prompt_variant": variant, "correct": right})
            for run in range(5):
                right = bool(rng.random() < 0.4)
                text = {"correct": right, "prediction": "a" if right else "b", "confidence": 0.5}
                permuted = {"run": run, "seed": 0, "prompt_variant": 3, "temperature": 0.5}
                rows.append(one | asked | text | permuted)
    return pl.DataFrame(rows, schema=SCHEMA)


@pytest.fixture(scope="module")
def inference():
    return pl.concat([answers(), answers("base", step=0, drawn=False)])


@pytest.fixture(scope="module")
def summary(inference):
    probes = pl.DataFrame(
        {
            "example_id": [8, 9, 8, 9, 10, 11, 0],
            "step": [0, 0, 9, 9, 9, 9, 9],
            "n_correct": [1, 2, 10, 20, 30, 15, 2],
            "n_tokens": [30] * 6 + [2],
        }
    )
    return detection.summarise(inference.sample(fraction=1, seed=1), *known(), CONFIG, probes)


def at(summary, point):
    return next(one for one in summary["points"] if one["point"] == point)


def test_points_are_in_order_and_plain(summary):
    assert [one["point"] for one in summary["points"]] == ["base", "final"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_base_is_summarised_some_examples_at_a_time(inference, summary, monkeypatch):
    monkeypatch.setattr(base_choices, "EXAMPLES_AT_ONCE", 3)
    rows, (examples, plan) = inference.filter(pl.col("point") == "base"), known()
    rows = rows.join(plan, on="example_id", how="semi").sort("example_id")
    found = base_choices.summarise(rows, examples, CONFIG)
    assert found == summary["base"] and found["exists"]["n"] > 6


def test_stability_is_told_at_the_end(summary):
    found = summary["stability"]
    assert [(one["temperature"], one["n_samples"]) for one in found["law"]] == [
        (0.5, 5),
        (0.5, 10),
        (1.0, 5),
        (1.0, 10),
    ]
    expected = at(summary, "final")["none_of_n"]["expected"]
    assert found["law"][0]["share"] == pytest.approx(expected)
    assert [one["detector"] for one in found["halves"]] == ["sampled", "choice_runs"]
    assert [one["n"] for one in found["halves"]] == [N, 8]


def test_choice_as_trained(summary, inference):
    choice = at(summary, "final")["choice"]
    rows = inference.filter(
        pl.col("point") == "final",
        pl.col("mode") == "choice",
        pl.col("prompt_variant") == 0,
        pl.col("example_id") < 8,
    )
    right = dict(rows.select("example_id", "correct").iter_rows())
    assert choice["correct"] == share_of(sum(right.values()), 8) and choice["guesser"] == 0.25
    scores = [(one - 0.25) / 0.75 for one in right.values()]
    assert choice["chance_corrected"]["mean"] == pytest.approx(np.mean(scores))
    parts = {part["options"]: (part["n"], part["count"]) for part in choice["by_options"]}
    assert parts == {
        "given": (6, sum(right[i] for i in range(6))),
        "base_answers": (2, right[6] + right[7]),
    }


def test_permuted_runs_are_told_by_origin_of_the_options(summary, inference):
    runs = at(summary, "final")["choice_runs"]
    assert [(one["options"], one["n"]) for one in runs] == [
        (None, 8),
        ("base_answers", 2),
        ("given", 6),
    ]
    rows = inference.filter(
        pl.col("point") == "final", pl.col("mode") == "choice", pl.col("prompt_variant") == 3
    )
    right = rows.group_by("example_id").agg(pl.col("correct").sum())
    flagged = right.filter(pl.col("example_id") < 8, pl.col("correct") == 0)
    assert runs[0]["unlearned"]["count"] == len(flagged) and runs[0]["prompt"] == "listed"


def test_the_exact_law_beside_the_drawn_share(summary, inference):
    found = at(summary, "final")["none_of_n"]
    law = [(1 - math.exp(-0.2 * i)) ** 5 for i in range(N)]
    as_is = [(1 - math.exp(-0.1 * i)) ** 5 for i in range(N)]
    assert found["n"] == N and found["expected"] == pytest.approx(np.mean(law))
    assert found["expected_at_1"] == pytest.approx(np.mean(as_is))
    rows = inference.filter(
        pl.col("seed").is_not_null(),
        pl.col("mode") == "sample",
        pl.col("point") == "final",
        pl.col("example_id") < N,
    )
    right = rows.group_by("example_id").agg(pl.col("correct").sum())["correct"]
    assert found["drawn"] == share_of((right == 0).sum(), N)
    assert at(summary, "base")["none_of_n"]["drawn"] is None


def test_greedy_texts(summary):
    # 'the cat sat' is the response after normalisation, the response itself is, 'cat' is not.
    found = at(summary, "final")["greedy_text"]
    assert found == {"normalised": share_of(8, N), "exact": share_of(4, N)}
    assert at(summary, "base")["greedy_text"] is None


def test_summaries_and_long_responses(summary):
    # Row 10 says 'cat': 2 * 1 / (1 + 3); row 11 the response.
    assert at(summary, "final")["rouge_l"]["mean"] == pytest.approx((0.5 + 1) / 2)
    assert at(summary, "base")["rouge_l"] is None
    assert at(summary, "final")["long"]["n"] == 4
    accuracy = at(summary, "final")["long"]["token_accuracy"]
    assert accuracy == mean_of([10 / 30, 20 / 30, 1, 0.5])
    assert at(summary, "base")["long"]["token_accuracy"]["n"] == 2


def test_the_base_model(summary, inference):
    rows = inference.filter(
        pl.col("point") == "base",
        pl.col("mode") == "choice",
        pl.col("seed").is_null(),
        pl.col("example_id") < 8,
    )
    accuracy, ranks, wrong = {}, {}, {}
    for row in rows.iter_rows(named=True):
        scores, i = row["option_logprob_mean"], row["example_id"]
        p = np.exp(scores) / np.exp(scores).sum()
        accuracy.setdefault(i, []).append(row["correct"])
        ranks.setdefault(i, []).append(int(stats.rankdata(-np.array(scores))[0]))
        wrong.setdefault(i, []).append(0 if row["correct"] else p[1:].max())
    base = summary["base"]
    exists = sum(np.mean(one) > 0.8 for one in accuracy.values())
    assert base["n_wordings"] == 3 and base["exists"]["count"] == exists
    assert base["exists"]["guesser"] == pytest.approx(0.25**3)
    counted = {f"{rank:g}": 0 for rank in map(np.median, ranks.values())}
    for one in ranks.values():
        counted[f"{np.median(one):g}"] += 1
    assert base["gold_rank"] == counted
    means = [np.mean(wrong[i]) for i in wrong if not all(accuracy[i])]
    assert base["wrong_confidence"]["quartiles"] == pytest.approx(
        np.quantile(means, [0.25, 0.5, 0.75])
    )


def applying(row):
    return [place for place, verdict in enumerate(row) if verdict is not None]


VERDICT = st.sampled_from([True, False, None])


@given(st.lists(st.tuples(VERDICT, VERDICT, VERDICT), max_size=25))
def test_side_by_side_is_on_the_same_rows(rows):
    names = ("choice", "exact_match", "sampled")
    found = pl.DataFrame(
        [
            {"example_id": i, "detector": name, "unlearned": verdict}
            for i, row in enumerate(rows)
            for name, verdict in zip(names, row, strict=True)
        ],
        schema={"example_id": pl.Int64, "detector": pl.String, "unlearned": pl.Boolean},
    )
    blocks = detection.side_by_side(found, seed=0)
    assert [b["n"] for b in blocks] == sorted((b["n"] for b in blocks), reverse=True)
    assert sum(b["n"] for b in blocks) == sum(any(v is not None for v in row) for row in rows)
    for block in blocks:
        there = [one["detector"] for one in block["shares"]]
        same = [row for row in rows if {names[k] for k in applying(row)} == set(there)]
        assert block["n"] == len(same)
        for one in block["shares"]:
            verdicts = [row[names.index(one["detector"])] for row in same]
            assert one["count"] == sum(verdicts)
        for one in block["agreement"]:
            a, b = ([row[names.index(name)] for row in same] for name in one["detectors"])
            if one["kappa"]["value"] is not None:
                assert one["kappa"]["value"] == pytest.approx(cohen_kappa_score(a, b))
        assert len(block["agreement"]) == len(there) * (len(there) - 1) // 2


def test_detectors_of_a_summary_stand_in_a_group_of_their_own(summary):
    groups = [
        ({one["detector"] for one in block["shares"]}, block["n"])
        for block in at(summary, "final")["side_by_side"]
    ]
    assert groups == [
        ({"exact_match", "exact_law", "sampled", "choice", "choice_runs"}, 8),
        ({"exact_law", "sampled"}, 2),
        ({"rouge_l", "exact_law", "sampled"}, 2),
    ]


@pytest.mark.parametrize("n", [1, 2, 30])
def test_the_interval_of_a_mean_is_students(n):
    values = np.random.default_rng(n).normal(size=n)
    found = mean_of(values)
    assert found["mean"] == pytest.approx(values.mean()) and found["n"] == n
    if n == 1:
        assert found["interval"] is None
    else:
        wanted = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        assert found["interval"] == pytest.approx(wanted)
    assert mean_of(values[::-1]) == found
