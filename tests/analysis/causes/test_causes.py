"""Scores of the five causes: their range, direction, nulls, and hand-made rows."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.causes import (
    base_conflict,
    data_conflict,
    insufficient_training,
    left_side_forgetting,
    missing_knowledge,
)
from ilp_jax.analysis.causes.scale import ramp

SHARE = st.floats(0, 1)
MAYBE = st.one_of(st.none(), SHARE, st.just(math.nan))
# Signals of each cause, and whether more of one is more evidence (None: neither).
SIGNALS = {
    left_side_forgetting: {"own_drop": 1, "own_stage_prob": None, "prob": None},
    insufficient_training: {"pattern_relative": -1, "rank_slope_end": -1, "loss_fall_last": 1},
    base_conflict: {"base_wrong_confidence": 1, "rank_base_wrong_confidence": 1},
    missing_knowledge: {
        "base_accuracy": -1,
        "base_gold_prob": -1,
        "base_gold_rank": None,
    },
    data_conflict: {"twin_disagreement": 1},
}
WITHOUT_OPTIONS = {
    base_conflict: {"base_greedy_confidence": 1, "rank_base_greedy_confidence": 1},
    missing_knowledge: {"base_prob": -1, "rank_base_prob": -1},
}
GIVEN = {
    left_side_forgetting: {"learned_own_stage": True},
    insufficient_training: {"slope_end": -0.1, "learned_own_stage": False, "own_stage_prob": 0.4},
    data_conflict: {"near_duplicates": 6, "near_ids": [11, 12, 13, 14, 15, 16]},
    base_conflict: {"base_prob": 0.1},
    missing_knowledge: {},
}
CASES = [*SIGNALS.items(), *WITHOUT_OPTIONS.items()]


def name(value):
    return value.__name__.rsplit(".", 1)[-1] if hasattr(value, "__name__") else ""


def test_the_ramp_is_a_half_exactly_at_the_threshold():
    def at(value, *bounds):
        return pl.select(ramp(pl.lit(value, pl.Float64), *bounds)).item()

    assert [at(v, 0.2) for v in (-1.0, 0.0, 0.1, 0.2, 0.6, 1.0, 2.0)] == pytest.approx(
        [0, 0, 0.25, 0.5, 0.75, 1, 1]
    )
    assert at(math.nextafter(0.2, 0), 0.2) < 0.5 == at(0.2, 0.2)
    assert at(None, 0.2) is None


@pytest.mark.parametrize(("cause", "columns"), CASES, ids=name)
@given(data=st.data())
def test_scores_and_flags(cause, columns, data, signals_of, thresholds):
    rows = [
        GIVEN[cause] | {column: data.draw(MAYBE, column) for column in columns} for _ in range(5)
    ]
    told = cause.judge(signals_of(*rows), thresholds)
    assert told.columns == "example_id point score flag evidence related_ids".split()
    assert told["example_id"].to_list() == list(range(5))
    for row, out in zip(rows, told.to_dicts(), strict=True):
        needed = [c for c, direction in columns.items() if direction]
        absent = [c for c in needed if row[c] is None or math.isnan(row[c])]
        if out["score"] is None:
            assert absent and out["flag"] is None
            assert any(c in out["evidence"] for c in absent)
        else:
            assert 0 <= out["score"] <= 1
            assert out["flag"] is (out["score"] >= 0.5)
        if not absent:
            assert out["score"] is not None


@pytest.mark.parametrize(("cause", "columns"), CASES, ids=name)
@given(data=st.data())
def test_more_evidence_never_lowers_a_score(cause, columns, data, signals_of, thresholds):
    row = GIVEN[cause] | {column: data.draw(SHARE, column) for column in columns}
    column = data.draw(st.sampled_from([c for c, d in columns.items() if d]))
    values = sorted((row[column], data.draw(SHARE, "other")), reverse=columns[column] < 0)
    told = cause.judge(signals_of(*(row | {column: value} for value in values)), thresholds)
    assert told["score"][0] <= told["score"][1]


def judged(cause, signals_of, thresholds, **row):
    return cause.judge(signals_of(row), thresholds).row(0, named=True)


def test_forgetting_needs_having_learned(signals_of, thresholds):
    def told(**row):
        row = {"own_stage_prob": 0.93, "prob": 0.41, "position": 0.1, "own_drop": 0.52} | row
        return judged(left_side_forgetting, signals_of, thresholds, **row)

    lost = told(learned_own_stage=True)
    assert lost["flag"] and lost["score"] == pytest.approx(0.5 + 0.5 * (0.52 - 0.15) / 0.85)
    for number in ("0.93", "0.41", "0.52", "0.15", "0.1"):
        assert number in lost["evidence"]
    # Learned in part is enough, and can be lost.
    assert told(learned_own_stage=False)["flag"] is True
    assert "learned in part" in told(learned_own_stage=False)["evidence"]
    assert told(learned_own_stage=False, own_stage_prob=0.29)["flag"] is False
    assert told(learned_own_stage=True, own_drop=0.14)["flag"] is False
    before = told(learned_own_stage=None, own_drop=None)
    assert before["flag"] is None
    assert before["evidence"] == "not measured: learned_own_stage, own_drop"


def test_insufficient_training_is_rare_or_still_improving(signals_of, thresholds):
    falling = {"slope_end": -0.4, "rank_slope_end": 0.01, "loss_fall_last": 0.5}
    flat = {"slope_end": 0.01, "rank_slope_end": 0.9, "loss_fall_last": -0.1}
    common, rare = {"pattern_relative": 1.0}, {"pattern_relative": 0.1}

    def flag(**row):
        row = {"own_stage_prob": 0.3} | row  # its stage has ended
        return judged(insufficient_training, signals_of, thresholds, **row)["flag"]

    assert flag(**falling, **common) and flag(**flat, **rare) and not flag(**flat, **common)
    assert flag(**flat, pattern_relative=0.25) and not flag(**flat, pattern_relative=0.26)
    # What the base model can do already it need not see often.
    assert flag(**flat, **rare, base_prob=0.09) and not flag(**flat, **rare, base_prob=0.1)
    # More training was not lacking for what was learned when its training ended.
    assert flag(**falling, **common, learned_own_stage=True) is False
    assert flag(**falling, **common, learned_own_stage=False) is True
    assert flag(**(falling | {"slope_end": 0.0}), **common) is False
    assert flag(**(falling | {"loss_fall_last": 0.05}), **common) is False
    # One part alone may raise the flag, but not lower it.
    assert flag(**falling) is True and flag(**rare) is True
    assert flag(**flat) is None and flag(**common) is None
    unvisited = judged(insufficient_training, signals_of, thresholds, presentations=0, **rare)
    assert unvisited["flag"] is None and unvisited["evidence"] == "not visited yet"


def test_while_its_stage_is_trained_a_fall_is_enough(signals_of, thresholds):
    row = {"slope_end": -0.4, "rank_slope_end": 0.9, "loss_fall_last": 0.5, "pattern_relative": 1.0}
    running, over = row | {"own_stage_prob": None}, row | {"own_stage_prob": 0.3}
    signals = signals_of(running, running | {"loss_fall_last": 0.05}, over)
    told = insufficient_training.judge(signals, thresholds)
    assert told["flag"].to_list() == [True, False, False]
    assert "still being trained" in told["evidence"][0]
    assert "still being trained" not in told["evidence"][2]
    # That it is not over needs no comparison with learned rows.
    assert insufficient_training.mark(signals, thresholds).to_list() == [None, None, False]


def test_every_row_alone_is_not_rare(signals_of, thresholds):
    # Real text, where a pattern hardly ever occurs twice: alone is what is usual.
    row = {"pattern_count": 1, "pattern_relative": 1.0, "slope_end": 0.1}
    assert judged(insufficient_training, signals_of, thresholds, **row)["flag"] is False


def test_the_base_is_in_conflict_where_it_is_wrong_with_confidence(signals_of, thresholds):
    def flag(confidence, rank, kind="wrong"):
        columns = {f"base_{kind}_confidence": confidence, f"rank_base_{kind}_confidence": rank}
        return judged(base_conflict, signals_of, thresholds, base_prob=0.2, **columns)["flag"]

    assert flag(0.5, 0.5) and not flag(0.49, 0.9) and not flag(0.9, 0.4)
    assert flag(0.3, 0.5, "greedy") and not flag(0.29, 0.9, "greedy")
    right = judged(base_conflict, signals_of, thresholds, base_prob=0.9)
    assert right["score"] == 0 and "own answer is the response" in right["evidence"]
    assert judged(base_conflict, signals_of, thresholds)["flag"] is None


def test_a_base_that_answers_in_kind_is_taken_at_its_word(signals_of, thresholds):
    def flags(**row):
        row = {"base_in_kind": True, "base_wrong_confidence": 0.9, "base_accuracy": 0.0} | row
        row = {"rank_base_wrong_confidence": 0.9, "base_gold_prob": 0.1} | row
        judges = (base_conflict, missing_knowledge)
        return [judged(judge, signals_of, thresholds, **row)["flag"] for judge in judges]

    # It believes another answer; it is unsure of another; its own is the response.
    assert flags(base_prob=0.1, base_greedy_confidence=0.3) == [True, True]
    assert flags(base_prob=0.1, base_greedy_confidence=0.29) == [False, True]
    assert flags(base_prob=0.4, base_greedy_confidence=None) == [False, False]
    # Of a base that goes on with other text, the options tell.
    assert flags(base_prob=0.0, base_greedy_confidence=None, base_in_kind=False) == [True, True]


def test_missing_knowledge_has_to_be_shown(signals_of, thresholds):
    def flag(**row):
        return judged(missing_knowledge, signals_of, thresholds, **row)["flag"]

    assert flag(base_accuracy=0.0, base_gold_prob=0.2, base_gold_rank=3.0)
    assert flag(base_accuracy=1 / 3, base_gold_prob=0.4)
    assert flag(base_accuracy=2 / 3, base_gold_prob=0.4) is False
    assert flag(base_accuracy=0.0, base_gold_prob=0.6) is False
    # With options, the probability of the text alone says nothing: the base knows it here.
    assert flag(base_accuracy=1.0, base_gold_prob=0.9, base_prob=0.0, rank_base_prob=0.0) is False
    assert flag(base_prob=0.01, rank_base_prob=0.3) and flag(base_prob=0.6, rank_base_prob=0.1) is (
        False
    )
    assert flag(base_prob=0.01, rank_base_prob=0.7) is False
    assert flag() is None


def test_one_against_one_is_a_conflict_and_names_both(signals_of, thresholds):
    def row(disagreement, *ids):
        return {
            "near_duplicates": len(ids),
            "twin_disagreement": disagreement if ids else None,
            "near_ids": list(ids),
        }

    told = data_conflict.judge(
        signals_of(
            row(1.0, 1),  # 0 and 1 contradict each other
            row(1.0, 0),
            row(2 / 3, 3, 5, 4),  # 2 and 4 agree against 3 and 5
            row(2 / 3, 2, 4, 5),
            row(2 / 3, 3, 5, 2),
            row(2 / 3, 2, 4, 3),
            row(0.0, 7),  # two that agree
            row(0.0, 6),
            row(1.0),  # nobody else asks it
            row(0.25, 8, 10, 11, 12),
        ),
        thresholds,
    )
    assert told["flag"].to_list() == [True, True] + [True] * 4 + [False] * 4
    assert told["score"].to_list()[:3] == pytest.approx([0.5] * 3)
    assert told["score"].to_list()[6:] == pytest.approx([0, 0, 0, 0.2])
    groups = told["related_ids"].to_list()
    assert groups[:2] == [[0, 1]] * 2 and groups[2:6] == [[2, 3, 4, 5]] * 4
    assert groups[6:8] == [None, None]
    assert groups[8] == groups[9] == [8, 9]
    assert "1 of 1 other trained rows" in told["evidence"][0] and "0, 1" in told["evidence"][0]
    assert told["evidence"][8] == "no other trained row asks the same"


def test_one_against_one_that_did_not_win_is_no_conflict(signals_of, thresholds):
    one, two = ({"near_duplicates": n, "twin_disagreement": 1.0, "near_ids": [7]} for n in (1, 2))
    rows = [one | {"rival_predicted": won} for won in (True, False, None)]
    told = data_conflict.judge(signals_of(*rows, two | {"rival_predicted": False}), thresholds)
    assert told["flag"].to_list() == [True, False, True, True]
    assert "is not theirs" in told["evidence"][1] and "flagged from 0.6" in told["evidence"][1]


@given(
    links=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12),
    points=st.integers(1, 2),
)
def test_groups_are_what_contradictions_connect(links, points, signals_of, thresholds):
    against = {i: sorted({b for a, b in links if a == i != b}) for i in range(12)}
    rows = [
        {
            "example_id": i,
            "point": f"stage_{point}",
            "near_duplicates": len(against[i]),
            "twin_disagreement": 1.0 if against[i] else None,
            "near_ids": against[i],
        }
        for i in against
        for point in range(1, points + 1)
    ]
    told = data_conflict.judge(signals_of(*rows), thresholds)
    for i, group in told.select("example_id", "related_ids").iter_rows():
        reached, new = set(), {i}
        while new:
            reached |= new
            new = {b for a in reached for b in range(12) if b in against[a] or a in against[b]}
            new -= reached
        assert group == (sorted(reached) if len(reached) > 1 else None)


def test_a_huge_group_is_not_repeated_on_each_row(signals_of, thresholds):
    n = data_conflict.LARGEST_GROUP + 2
    rows = [
        {
            "near_duplicates": 2,
            "twin_disagreement": 1.0,
            "near_ids": [(i + 1) % n, (i - 1) % n],
        }
        for i in range(n)
    ]
    told = data_conflict.judge(signals_of(*rows), thresholds)
    assert told["related_ids"][5].to_list() == [4, 5, 6]
    assert told["flag"].all()
