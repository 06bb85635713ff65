"""Signals as the numbers that a fitted classifier sees, and which method sees which.

A classifier that is fitted on one run must mean the same on another, so an input is a
probability, a share or a rank among the trained rows of the run. Left out on purpose:

* counts and sizes (visits, duplicates, tokens, nats, norms) where a rank or share says it;
* ``grad_share_*``: they depend on the model's shape and have no rank;
* ``position`` and ``segment``: where a row stands is how the run was set up; what came of it
  is in ``own_drop``;
* ``replay_k``: few rows are replayed, in some runs none.

``model_blind`` also leaves out `SET_BY_DATA`, what whoever makes the training set decides and
a planted world therefore gives away: duplicates and contradictions, visits, rarity, lengths.
"""

from __future__ import annotations

import polars as pl

from ilp_jax.analysis.cascade import KEY
from ilp_jax.analysis.causes.scale import known
from ilp_jax.analysis.signal_columns import SIGNALS_SCHEMA

MODEL, BLIND = "model", "model_blind"

_AS_THEY_ARE = (
    *("confidence", "variability", "own_stage_prob", "prob", "own_drop", "best_prob"),
    *("drop_from_best", "base_gold_prob", "base_wrong_confidence", "base_accuracy"),
    *("base_prob", "base_greedy_confidence", "d_js", "learned_own_stage", "loss_fall_last"),
    *("greedy_confidence", "keeps_base_answer", "base_in_kind"),
)
_RANKS = (
    *("confidence", "variability", "slope_end", "loss_last", "loss_fall_last"),
    *("entropy_slope", "entropy_change", "grad_norm_base", "grad_norm_end", "grad_norm_ratio"),
    *("own_stage_prob", "prob", "own_drop", "best_prob", "drop_from_best", "base_gold_rank"),
    *("base_gold_prob", "base_wrong_confidence", "base_accuracy", "base_prob"),
    *("base_greedy_confidence", "d_js", "base_entropy", "entropy_now", "greedy_confidence"),
)
OF_THE_MODEL = (*_AS_THEY_ARE, *(f"rank_{name}" for name in _RANKS), "prob_last_visit")
"""What the base model knew and how training went."""

SET_BY_DATA = (
    *("contradicting_share", "contradicting_visits", "agreeing_share", "rival_predicted"),
    "pattern_rarity",
    *("rank_presentations", "rank_correctness", "rank_forgetting_events"),
    *("rank_presentations_to_learn", "correct_share", "forgetting_share", "unsettled_share"),
    *("rank_response_tokens", "rank_prompt_tokens"),
)
"""What the training set decides. Counts of visits of some kind are among them: they are at
most the visits, and of a row that was never learned some are equal to them."""

MADE_OF = tuple(
    name
    for name in SIGNALS_SCHEMA.names
    if name in (*KEY, *OF_THE_MODEL, *SET_BY_DATA)
    or name in ("presentations", "correctness", "forgetting_events", "presentations_to_learn")
    or name in ("loss_last", "near_duplicates", "twin_disagreement", "near_ids")
    or name in ("response_tokens", "prompt_tokens")
)
"""The signals that the inputs are made of."""

INPUTS = {MODEL: (*OF_THE_MODEL, *SET_BY_DATA), BLIND: OF_THE_MODEL}
"""Names of the inputs of each method, in order."""


def signal_of(name: str) -> str:
    """The signal that an input shows: a value and its rank are one signal."""
    return name.removeprefix("rank_")


def inputs(signals: pl.DataFrame) -> pl.DataFrame:
    """The inputs of every row, null where not known.

    Beside signals as they are:

    * ``prob_last_visit`` = exp(-loss_last): the target's probability a token at the last visit;
    * ``base_greedy_confidence`` and its rank: 0 where the base model was asked and right;
    * ``contradicting_share``: contradicting rows among those of the same question, itself
      counted; ``agreeing_share``: other rows that agree, likewise;
    * ``contradicting_visits``: the same of visits, of the near rows that are listed;
    * ``correct_share``, ``forgetting_share``, ``unsettled_share``: correctness, forgetting
      events and presentations_to_learn per visit;
    * ``rank_response_tokens``, ``rank_prompt_tokens``: mid-ranks among the rows given.

    Args:
      signals: ``signals.parquet`` of all trained rows of some points; a column that is absent
        counts as not known.

    Returns:
      ``example_id``, ``point`` and every name of `INPUTS` as float64, in the order of
      ``signals``.
    """
    types = pl.from_arrow(SIGNALS_SCHEMA.empty_table()).schema
    absent = [
        pl.lit(None, types[name]).alias(name)
        for name in SIGNALS_SCHEMA.names
        if name not in signals.columns
    ]
    rows = known(signals.with_columns(absent))
    visits = pl.when(pl.col("presentations") > 0).then(pl.col("presentations"))
    near, others = pl.col("near_duplicates"), _contradicting()
    asked_and_right = pl.col("base_greedy_confidence").is_null() & pl.col("base_prob").is_not_null()
    told = rows.join(_visits_near(rows), on=KEY, how="left", maintain_order="left").with_columns(
        (-pl.col("loss_last")).exp().alias("prob_last_visit"),
        *(
            pl.when(asked_and_right).then(0.0).otherwise(pl.col(name)).alias(name)
            for name in ("base_greedy_confidence", "rank_base_greedy_confidence")
        ),
        (others / (near + 1)).alias("contradicting_share"),
        ((near - others) / (near + 1)).alias("agreeing_share"),
        (pl.col("correctness") / visits).alias("correct_share"),
        (pl.col("forgetting_events") / visits).alias("forgetting_share"),
        (pl.col("presentations_to_learn") / visits).alias("unsettled_share"),
        *(_rank(name).alias(f"rank_{name}") for name in ("response_tokens", "prompt_tokens")),
    )
    return told.select(*KEY, pl.col(INPUTS[MODEL]).cast(pl.Float64))


def _rank(name: str) -> pl.Expr:
    value = pl.col(name)
    return ((value.rank("average") - 0.5) / value.count()).over("point")


def _contradicting() -> pl.Expr:
    """How many rows of the same question have another response."""
    return (pl.col("near_duplicates") * pl.col("twin_disagreement").fill_null(0.0)).round()


def _visits_near(rows: pl.DataFrame) -> pl.DataFrame:
    """``contradicting_visits``: the part of a question's visits that told another response.

    Disagreeing rows are listed first.
    """
    one = rows.select(*KEY, "presentations", "near_ids", _contradicting().alias("n"))
    listed = (
        one.filter(pl.col("near_ids").list.len() > 0)
        .select(*KEY, "n", "near_ids", pl.int_ranges(pl.col("near_ids").list.len()).alias("place"))
        .explode("near_ids", "place")
        .join(
            one.select(pl.col("example_id").alias("near_ids"), "point", "presentations"),
            on=("near_ids", "point"),
        )
        .group_by(KEY)
        .agg(
            pl.col("presentations").sum().alias("all"),
            pl.col("presentations").filter(pl.col("place") < pl.col("n")).sum().alias("against"),
        )
    )
    whole = pl.col("presentations") + pl.col("all").fill_null(0)
    share = pl.when(whole > 0).then(pl.col("against").fill_null(0) / whole)
    return one.join(listed, on=KEY, how="left").select(*KEY, share.alias("contradicting_visits"))
