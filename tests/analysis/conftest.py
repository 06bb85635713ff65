"""Frames of signals by hand: what a test does not name is null."""

import polars as pl
import pytest

FLOATS = (
    "own_stage_prob prob own_drop best_prob drop_from_best position slope_end rank_slope_end "
    "loss_last loss_fall_last base_gold_prob base_gold_rank base_wrong_confidence "
    "rank_base_wrong_confidence base_accuracy base_prob rank_base_prob base_greedy_confidence "
    "rank_base_greedy_confidence d_js twin_disagreement pattern_rarity"
)
INTEGERS = "example_id presentations near_duplicates pattern_count response_tokens"
SCHEMA = {
    **dict.fromkeys(INTEGERS.split(), pl.Int64),
    **dict.fromkeys(FLOATS.split(), pl.Float64),
    **dict.fromkeys(("point", "segment"), pl.String),
    **dict.fromkeys(("learned_own_stage", "p_exist"), pl.Boolean),
    "near_ids": pl.List(pl.Int64),
}


@pytest.fixture(scope="session")
def signals_of():
    """``signals_of(row, row, ...)``: a frame of signals; ids from 0, at ``final``, 4 visits."""

    def frame(*rows):
        common = {"point": "final", "presentations": 4, "response_tokens": 2}
        return pl.DataFrame(
            [{"example_id": i, **common, **row} for i, row in enumerate(rows)], schema=SCHEMA
        )

    return frame


@pytest.fixture(scope="session")
def thresholds():
    """The defaults of the config's group ``diagnose``, as plain values."""
    from ilp_jax.config import default_config, to_dict

    return to_dict(default_config())["diagnose"]
