"""The base model lacks what the response says, as far as it can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ilp_jax.analysis.causes.scale import known, number, ramp, verdicts, weakest

NEEDS = ("base_accuracy", "base_gold_prob", "base_prob", "rank_base_prob")


def judge(signals: pl.DataFrame, thresholds: Mapping[str, Any]) -> pl.DataFrame:
    """Scores the base model's ignorance of the recorded response.

    Where the base's own answer is an answer of this data (base_in_kind): score =
    ramp(1 - base_prob; 1 - lack_probability, 1) if it is wrong, else 0. Elsewhere, with
    options: score = min(ramp(1 - base_accuracy; 1 - lack_accuracy, 1),
    ramp(1 - base_gold_prob; 1 - lack_gold_probability, 1)): it is mostly wrong over the
    wordings asked, and gives the response no majority among its options. Without: the same of
    base_prob (lack_probability) and of its rank among trained rows of like length
    (lack_rank). Ignorance has to be shown: a base that knows the response is no reason, and
    such a row stays unattributed if nothing else explains it.

    Args:
      signals: ``base_in_kind``, ``base_greedy_confidence`` (null where the base is right),
        ``base_accuracy``, ``base_gold_prob``, ``base_gold_rank``, ``base_prob``,
        ``rank_base_prob``.
      thresholds: ``lack_accuracy``, ``lack_gold_probability``, ``lack_probability``,
        ``lack_rank``.

    Returns:
      See the package.
    """

    def lack(column: str, largest: str) -> pl.Expr:
        return ramp(1 - pl.col(column), 1 - thresholds[largest])

    asked = pl.col("base_accuracy").is_not_null() & pl.col("base_gold_prob").is_not_null()
    with_options = weakest(
        lack("base_accuracy", "lack_accuracy"), lack("base_gold_prob", "lack_gold_probability")
    )
    without = weakest(lack("base_prob", "lack_probability"), lack("rank_base_prob", "lack_rank"))
    in_kind = pl.col("base_in_kind").fill_null(False) & pl.col("base_prob").is_not_null()
    right = pl.col("base_greedy_confidence").is_null()
    own = pl.when(right).then(0.0).otherwise(lack("base_prob", "lack_probability"))
    said = pl.format(
        "the base model's own answer {} and it gives the response probability {} a token "
        "(flagged up to {}, where its own is another)",
        pl.when(right).then(pl.lit("is the response,")).otherwise(pl.lit("is another,")),
        number(pl.col("base_prob"), 3),
        pl.lit(thresholds["lack_probability"]),
    )
    among_options = pl.format(
        "the base model is right in {} of the wordings (flagged up to {}) and gives the response "
        "{} among its options (flagged up to {}); the response's rank there is {}",
        number(pl.col("base_accuracy")),
        pl.lit(thresholds["lack_accuracy"]),
        number(pl.col("base_gold_prob")),
        pl.lit(thresholds["lack_gold_probability"]),
        number(pl.col("base_gold_rank"), 1),
    )
    alone = pl.format(
        "the base model gives the response probability {} a token (flagged up to {}), more than "
        "{} of the rows of its length (flagged up to {})",
        number(pl.col("base_prob"), 3),
        pl.lit(thresholds["lack_probability"]),
        number(pl.col("rank_base_prob")),
        pl.lit(thresholds["lack_rank"]),
    )
    return verdicts(
        known(signals),
        pl.when(in_kind).then(own).when(asked).then(with_options).otherwise(without),
        pl.when(in_kind).then(said).when(asked).then(among_options).otherwise(alone),
        NEEDS,
    )
