"""What a classifier sees of signals."""

import math

import polars as pl
import pytest

from ilp_jax.analysis.fitted import inputs as module
from ilp_jax.analysis.fitted.inputs import BLIND, INPUTS, MODEL, SET_BY_DATA, inputs
from ilp_jax.analysis.signal_columns import RANKED, SIGNALS_SCHEMA

SET_BY_THE_PLANT = (
    *("presentations", "correctness", "forgetting_events", "first_learned"),
    *("presentations_to_learn", "near_", "twin_", "contradict", "agree", "pattern", "_tokens"),
    *("position", "segment", "copies", "stage_number", "correct_share", "_visits", "replay"),
)


def test_the_blind_method_sees_nothing_that_a_plant_sets():
    for name in INPUTS[BLIND]:
        assert not [part for part in SET_BY_THE_PLANT if part in name], name
    assert set(INPUTS[MODEL]) == set(INPUTS[BLIND]) | set(SET_BY_DATA)
    assert not set(INPUTS[BLIND]) & set(SET_BY_DATA)


def test_every_input_is_a_signal_or_made_here():
    made = {"prob_last_visit", *SET_BY_DATA}
    assert set(INPUTS[MODEL]) - made <= set(SIGNALS_SCHEMA.names)
    ranked = {name.removeprefix("rank_") for name in module.OF_THE_MODEL if "rank_" in name[:5]}
    assert ranked <= set(RANKED)


def test_blind_inputs_do_not_change_with_what_is_left_out(signals_of):
    row = {"prob": 0.3, "base_prob": 0.2, "own_drop": 0.1}
    other = {"presentations": 9, "near_duplicates": 3, "twin_disagreement": 1.0}
    other |= {"near_ids": [0, 1], "response_tokens": 40, "pattern_rarity": 0.9}
    one, two = (inputs(signals_of(row, row, row | more)) for more in ({}, other))
    assert one.select(INPUTS[BLIND]).equals(two.select(INPUTS[BLIND]))


def test_contradiction_by_rows_and_by_visits(signals_of):
    rows = inputs(
        signals_of(
            {"near_duplicates": 3, "twin_disagreement": 2 / 3, "near_ids": [1, 2, 3]},
            {"presentations": 6},
            {"presentations": 2},
            {"presentations": 8},
            {"near_duplicates": 0, "near_ids": []},
            {"near_duplicates": 1, "twin_disagreement": 0.0, "near_ids": [1]},
            {"near_duplicates": 1, "twin_disagreement": 1.0, "near_ids": [99]},
        )
    ).to_dicts()
    told = [
        (r["contradicting_share"], r["agreeing_share"], r["contradicting_visits"]) for r in rows
    ]
    # Rows 1 and 2 disagree with row 0 (4 visits), row 3 agrees: 8 of 20 visits.
    assert told[0] == pytest.approx((0.5, 0.25, 0.4))
    assert told[4] == (0.0, 0.0, 0.0)
    assert told[5] == (0.0, 0.5, 0.0)
    assert told[6] == (0.5, 0.0, 0.0)  # the other row was not given
    assert told[1] == (None, None, 0.0)


def test_shares_of_visits_and_the_base_that_was_right(signals_of):
    a, b, c, d = inputs(
        signals_of(
            {"loss_last": 0.5, "base_prob": 0.9},
            {"base_prob": 0.9, "base_greedy_confidence": 0.4},
            {"presentations": 0, "loss_last": float("nan")},
            {"response_tokens": 5},
        ).with_columns(correctness=pl.Series([1, 4, 0, None], dtype=pl.Int32))
    ).to_dicts()
    assert a["prob_last_visit"] == pytest.approx(math.exp(-0.5))
    assert (a["base_greedy_confidence"], a["rank_base_greedy_confidence"]) == (0.0, 0.0)
    assert (b["base_greedy_confidence"], c["base_greedy_confidence"]) == (0.4, None)
    assert (a["correct_share"], b["correct_share"]) == (0.25, 1.0)
    assert (c["correct_share"], c["prob_last_visit"], d["correct_share"]) == (None, None, None)
    assert [r["rank_response_tokens"] for r in (a, b, c, d)] == [0.375, 0.375, 0.375, 0.875]


def test_absent_columns_are_not_known():
    rows = inputs(pl.DataFrame({"example_id": [1, 2], "point": ["final"] * 2}))
    assert rows.columns == ["example_id", "point", *INPUTS[MODEL]]
    assert set(rows.dtypes[2:]) == {pl.Float64}
    assert all(rows[name].null_count() == 2 for name in INPUTS[BLIND])
