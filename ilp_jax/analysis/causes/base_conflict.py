"""The base model firmly believes another answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ilp_jax.analysis.causes.scale import known, number, ramp, verdicts, weakest

NEEDS = (
    "base_wrong_confidence",
    "rank_base_wrong_confidence",
    "base_greedy_confidence",
    "rank_base_greedy_confidence",
)


def judge(signals: pl.DataFrame, thresholds: Mapping[str, Any]) -> pl.DataFrame:
    """Scores the base model's confidence in a wrong answer (the study's Eq. 6).

    Where the base's own answer is an answer of this data (base_in_kind), it counts alone:
    score = ramp(its probability; wrong_greedy_confidence, 1) if it is wrong, else 0.
    Elsewhere score = min(ramp(confidence; threshold, 1), ramp(rank; wrong_confidence_rank, 1)):
    the confidence is in a wrong option where the row has options (threshold
    wrong_confidence), else in the base's wrong greedy answer (wrong_greedy_confidence); the
    rank is that confidence's among trained rows of like length, since short answers are given
    with more.

    Args:
      signals: ``base_in_kind``, ``base_wrong_confidence``, ``base_greedy_confidence`` (null
        where the base is right), their ``rank_``, and ``base_prob``, null where the base was
        not asked.
      thresholds: ``wrong_confidence``, ``wrong_greedy_confidence``, ``wrong_confidence_rank``.

    Returns:
      See the package.
    """
    least_rank = thresholds["wrong_confidence_rank"]

    def of(column: str, threshold: float) -> pl.Expr:
        rank = ramp(pl.col(f"rank_{column}"), least_rank)
        return weakest(ramp(pl.col(column), threshold), rank)

    def text(column: str, threshold: float, answer: str, rows: str) -> pl.Expr:
        return pl.format(
            f"the base model gives {answer} probability {{}} (flagged from {{}}), more than {{}} "
            f"of {rows} of its length (flagged from {{}})",
            number(pl.col(column)),
            pl.lit(threshold),
            number(pl.col(f"rank_{column}")),
            pl.lit(least_rank),
        )

    options = ("base_wrong_confidence", thresholds["wrong_confidence"])
    greedy = ("base_greedy_confidence", thresholds["wrong_greedy_confidence"])
    in_kind = pl.col("base_in_kind").fill_null(False)
    has_options = pl.col("base_wrong_confidence").is_not_null() & ~in_kind
    # Of a base that answers right, the confidence in a wrong answer is null.
    right = pl.col("base_prob").is_not_null() & pl.col("base_greedy_confidence").is_null()
    return verdicts(
        known(signals),
        pl.when(has_options)
        .then(of(*options))
        .when(right)
        .then(0.0)
        .when(in_kind)
        .then(ramp(pl.col(greedy[0]), greedy[1]))
        .otherwise(of(*greedy)),
        pl.when(has_options)
        .then(text(*options, "a wrong option", "the rows"))
        .when(right)
        .then(pl.lit("the base model's own answer is the response"))
        .when(in_kind)
        .then(
            pl.format(
                "the base model gives its own answer, another one, probability {} (flagged from "
                "{})",
                number(pl.col(greedy[0])),
                pl.lit(greedy[1]),
            )
        )
        .otherwise(text(*greedy, "its own wrong answer", "the rows answered wrong")),
        NEEDS,
    )
