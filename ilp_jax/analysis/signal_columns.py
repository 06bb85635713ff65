"""Columns of ``signals.parquet``: names, types, meanings, units. Nothing here computes.

One row an example and point; every signal rests on what was measured up to that point. Null
means not known: not measured, not defined for the example, or not yet.
"""

from __future__ import annotations

import pyarrow as pa

from ilp_jax.stats.schema import GROUPS

_FLOAT, _INT, _BOOL, _TEXT = pa.float64(), pa.int32(), pa.bool_(), pa.string()
_PER_TOKEN = "geometric mean over target tokens (end token included) of the target's probability"
_LATE = "over the last half of the visits, at least two"
_WORDINGS = "over the wordings of the question that were asked"
_NEAR = "prompts are the same but for case and punctuation, or nearly so (analysis.duplicates)"

_SIGNALS = (
    # Training visits (analysis.dynamics).
    ("presentations", _INT, "training visits; null in a run without training", "visits"),
    ("confidence", _FLOAT, "mean over visits of the target tokens' mean probability", "[0, 1]"),
    ("variability", _FLOAT, "population standard deviation of the same", "[0, 0.5]"),
    ("correctness", _INT, "visits with every target token the argmax", "visits"),
    ("forgetting_events", _INT, "times correct at a visit and not at the next", "events"),
    ("first_learned", _INT, "first visit that was correct, from 1; null: none", "visit"),
    ("presentations_to_learn", _INT, "last visit that was not correct; 0: none", "visit"),
    ("slope_end", _FLOAT, f"least-squares slope of the loss {_LATE}", "nats a token a visit"),
    ("loss_last", _FLOAT, "loss at the last visit", "nats a token"),
    ("loss_fall_last", _FLOAT, f"relative fall of the loss {_LATE}", "of its first value"),
    ("entropy_slope", _FLOAT, f"least-squares slope of the entropy {_LATE}", "nats a visit"),
    ("base_entropy", _FLOAT, "prediction's mean entropy at the base", "nats"),
    ("entropy_now", _FLOAT, "the same at the last probe", "nats"),
    ("entropy_change", _FLOAT, "prediction's mean entropy at the last probe minus base", "nats"),
    ("grad_norm_base", _FLOAT, "gradient norm at the base model", ""),
    ("grad_norm_end", _FLOAT, "last gradient norm known", ""),
    ("grad_norm_ratio", _FLOAT, "grad_norm_end / grad_norm_base", ""),
    *(
        (f"grad_share_{g}_end", _FLOAT, f"part of grad_norm_end squared in {g}", "[0, 1]")
        for g in GROUPS
    ),
    # Own stage and sequence (analysis.retention).
    ("learned_own_stage", _BOOL, "exact match at the end of its last own stage so far", ""),
    ("own_stage_prob", _FLOAT, f"at that end: {_PER_TOKEN}", "[0, 1]"),
    ("prob", _FLOAT, f"now: {_PER_TOKEN}", "[0, 1]"),
    ("own_drop", _FLOAT, "own_stage_prob - prob", "[-1, 1]"),
    ("best_prob", _FLOAT, "largest prob over points and probes so far", "[0, 1]"),
    ("drop_from_best", _FLOAT, "best_prob - prob", "[0, 1]"),
    ("position", _FLOAT, "rank of the first visit in the whole sequence", "[0, 1]"),
    ("segment", _TEXT, "first_10, middle or last_10 (percent) of the sequence", ""),
    # The base model (analysis.base_knowledge); null without options, base_prob and below aside.
    ("base_gold_rank", _FLOAT, f"response's rank among its options, median {_WORDINGS}", "rank"),
    ("base_gold_prob", _FLOAT, f"response's probability among options, mean {_WORDINGS}", "[0, 1]"),
    ("base_wrong_confidence", _FLOAT, "likeliest wrong option's probability, 0 where right; mean "
     + _WORDINGS, "[0, 1]"),
    ("base_accuracy", _FLOAT, f"share right {_WORDINGS}", "[0, 1]"),
    ("p_exist", _BOOL, "base_accuracy above diagnose.exist_accuracy", ""),
    ("base_prob", _FLOAT, f"at the base: {_PER_TOKEN}", "[0, 1]"),
    ("base_greedy_confidence", _FLOAT, "probability of the base model's wrong answer", "[0, 1]"),
    ("base_in_kind", _BOOL, "whether its own answer is a response or option of any row", ""),
    ("d_js", _FLOAT, "Jensen-Shannon divergence from the base over options", "nats, at most ln 2"),
    # The answer given now (analysis.answers).
    ("greedy_confidence", _FLOAT, "probability of its greedy answer, right or wrong", "[0, 1]"),
    ("keeps_base_answer", _BOOL, "whether that is the base model's greedy answer", ""),
    # The training set (analysis.duplicates, analysis.rarity).
    ("near_duplicates", _INT, f"other trained rows whose {_NEAR}", "rows"),
    ("twin_disagreement", _FLOAT, "share of these with another response; null: none", "[0, 1]"),
    ("near_ids", pa.list_(pa.int64()), "some of these, disagreeing ones first", ""),
    ("rival_predicted", _BOOL, "whether one that disagrees is what the model answers now", ""),
    ("pattern_count", _INT, "trained rows with its prompt's pattern (analysis.rarity)", "rows"),
    ("pattern_rarity", _FLOAT, "mid-rank of that among trained rows, 1 the rarest", "[0, 1]"),
    ("pattern_relative", _FLOAT, "pattern_count over its median among trained rows", "ratio"),
    ("response_tokens", _INT, "tokens of the response, end token left out", "tokens"),
    ("prompt_tokens", _INT, "tokens of the prompt", "tokens"),
    # Replay (replay.parquet).
    ("replay_k", _INT, "updates on it alone until exact match; null: censored or not "
     "measured", "updates"),
    ("replay_measured", _BOOL, "whether it was replayed; at the point final alone", ""),
)  # fmt: skip

RANKED = (
    *("presentations", "confidence", "variability", "correctness", "forgetting_events"),
    *("presentations_to_learn", "slope_end", "loss_last", "loss_fall_last", "entropy_slope"),
    *("entropy_change", "grad_norm_base", "grad_norm_end", "grad_norm_ratio", "own_stage_prob"),
    *("prob", "own_drop", "best_prob", "drop_from_best", "base_gold_rank", "base_gold_prob"),
    *("base_wrong_confidence", "base_accuracy", "base_prob", "base_greedy_confidence", "d_js"),
    *("base_entropy", "entropy_now", "greedy_confidence"),
)
"""Signals that also have a ``rank_`` of their own."""

_RANK = "mid-rank among trained rows of like response length at this point; null: not trained"

SIGNALS_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.int64(), False, {"meaning": "the example", "unit": ""}),
        pa.field("point", _TEXT, False, {"meaning": "moment of the run", "unit": ""}),
        *(
            pa.field(name, kind, True, {"meaning": meaning, "unit": unit})
            for name, kind, meaning, unit in _SIGNALS
        ),
        *(
            pa.field(
                f"rank_{name}", _FLOAT, True, {"meaning": f"{name}: {_RANK}", "unit": "[0, 1]"}
            )
            for name in RANKED
        ),
    ]
)
