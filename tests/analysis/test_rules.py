"""The order of causes, what stays unattributed, and flags that decide nothing."""

import itertools

import polars as pl
import pytest

from ilp_jax.analysis import rules
from ilp_jax.analysis.cascade import trained_by_then
from ilp_jax.stats.schema import CAUSES, DIAGNOSIS_SCHEMA

# Signals by which each cause is flagged, and by which it is known not to be.
YES = {
    "data_conflict": {"near_duplicates": 2, "twin_disagreement": 1.0, "near_ids": [50, 51]},
    "insufficient_training": {"pattern_relative": 0.05},
    "left_side_forgetting": {"learned_own_stage": True, "own_drop": 0.6},
    "base_conflict": {"base_wrong_confidence": 0.9, "rank_base_wrong_confidence": 0.8},
    "missing_knowledge": {"base_accuracy": 0.0, "base_gold_prob": 0.05},
}
NO = {
    "data_conflict": {"near_duplicates": 0, "near_ids": []},
    "insufficient_training": {"pattern_relative": 1.0, "slope_end": 0.1},
    "left_side_forgetting": {"learned_own_stage": False, "own_drop": 0.0},
    "base_conflict": {"base_wrong_confidence": 0.0, "rank_base_wrong_confidence": 0.2},
    "missing_knowledge": {"base_accuracy": 1.0, "base_gold_prob": 0.9},
}
ORDER = (
    "data_conflict",
    "insufficient_training",
    "left_side_forgetting",
    "base_conflict",
    "missing_knowledge",
)


def told(signals, thresholds, unlearned, idle=()):
    found = signals.select("example_id", "point").with_columns(
        pl.lit("exact_match").alias("detector"), pl.Series("unlearned", unlearned, pl.Boolean)
    )
    separation = pl.DataFrame(
        [
            {"detector": "exact_match", "point": "final", "cause": c, "decides": c not in idle}
            for c in ORDER
        ]
    )
    judged = rules.judge(signals, thresholds)
    rows = rules.combine(found, judged, trained_by_then(signals), separation)
    assert rows.columns == DIAGNOSIS_SCHEMA.names
    return rows.to_dicts()


def test_the_first_flag_of_the_order_decides(signals_of, thresholds):
    subsets = [s for n in range(6) for s in itertools.combinations(ORDER, n)]
    rows = [
        {k: v for cause in ORDER for k, v in (YES if cause in s else NO)[cause].items()}
        for s in subsets
    ]
    for raised, row in zip(subsets, told(signals_of(*rows), thresholds, [True] * 32), strict=True):
        assert {cause for cause in CAUSES if row[f"flag_{cause}"]} == set(raised)
        assert row["cause"] == (raised[0] if raised else "unattributed")
        others = {c: row[f"score_{c}"] for c in ORDER if c != row["cause"]}
        best = max(others, key=others.get)
        assert row["runner_up"] == (best if others[best] > 0 else None)
        assert (row["related_ids"] is not None) is (row["cause"] == "data_conflict")
        assert row["evidence"]


def test_known_to_the_base_and_nothing_else_is_unattributed(signals_of, thresholds):
    row = {k: v for part in NO.values() for k, v in part.items()}
    (out,) = told(signals_of(row), thresholds, [True])
    assert out["cause"] == "unattributed"
    for cause in CAUSES:
        assert cause.replace("_", " ") in out["evidence"]
    assert "right in 1.0 of the wordings" in out["evidence"]


def test_nothing_measured_is_unattributed_and_says_so(signals_of, thresholds):
    (out,) = told(signals_of({}), thresholds, [True])
    assert out["cause"] == "unattributed" and out["runner_up"] is None
    assert {out[f"flag_{cause}"] for cause in CAUSES} == {None}
    assert out["evidence"].count("not measured: ") == 5


def test_learned_rows_and_rows_without_verdict_have_no_cause(signals_of, thresholds):
    row = YES["base_conflict"] | NO["data_conflict"]
    for out in told(signals_of(row, row), thresholds, [False, None]):
        assert [out[c] for c in ("cause", "runner_up", "related_ids", "evidence")] == [None] * 4
        assert out["flag_base_conflict"] is True


def test_what_was_not_trained_yet_is_not_explained(signals_of, thresholds):
    row = YES["data_conflict"] | YES["base_conflict"]
    signals = signals_of(row | {"presentations": 0}, row | {"point": "base"}, row)
    untrained, base, trained = told(signals, thresholds, [True] * 3)
    for out in (untrained, base):
        assert (out["cause"], out["runner_up"]) == ("unattributed", None)
        assert "not trained yet" in out["evidence"]
    assert trained["cause"] == "data_conflict"


@pytest.mark.parametrize("idle", ORDER)
def test_a_flag_that_does_not_separate_decides_nothing(idle, signals_of, thresholds):
    row = {k: v for cause in ORDER for k, v in (YES if cause == idle else NO)[cause].items()}
    (out,) = told(signals_of(row), thresholds, [True], idle=[idle])
    assert out["cause"] == "unattributed" and out["runner_up"] != idle
    assert "decides nothing in this run" in out["evidence"]
    assert out[f"flag_{idle}"] is True


def test_what_is_compared_leaves_out_whether_the_row_was_learned(signals_of, thresholds):
    falling = {"slope_end": -0.4, "rank_slope_end": 0.01, "loss_fall_last": 0.5}
    rows = [
        {"learned_own_stage": own, "own_drop": 0.4, "pattern_relative": 1.0}
        | {"own_stage_prob": {True: 0.9, False: 0.2, None: None}[own]}
        | falling
        for own in (True, False, None)
    ]
    judged = rules.judge(signals_of(*rows), thresholds)
    assert judged["flag_insufficient_training"].to_list() == [False, True, True]
    assert judged["mark_insufficient_training"].to_list() == [True, True, None]
    assert judged["flag_left_side_forgetting"].to_list() == [True, False, None]
    assert judged["mark_left_side_forgetting"].to_list() == [True, None, None]
    assert judged["mark_base_conflict"].to_list() == judged["flag_base_conflict"].to_list()
