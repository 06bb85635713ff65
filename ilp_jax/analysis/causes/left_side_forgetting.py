"""Learned while its stage was trained, and lost under what was trained since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ilp_jax.analysis.causes.scale import known, number, ramp, verdicts

NEEDS = ("learned_own_stage", "own_drop")


def judge(signals: pl.DataFrame, thresholds: Mapping[str, Any]) -> pl.DataFrame:
    """Scores the fall of a learned row's target probability since its own stage's end.

    score = ramp(own_drop; forgotten_drop, 1) where the row was learned at the end of its own
    stage, else 0: what was never learned cannot be forgotten (in the prototype a third of the
    planted rows were not). Learned is reproduced exactly, or given a probability a token of
    learned_probability then: a row half learned can be lost too. own_drop is a difference of
    geometric-mean probabilities a token; a probability has a scale of its own, so no rank is
    taken.

    Args:
      signals: ``learned_own_stage``, ``own_drop``, ``own_stage_prob``, ``prob``, ``position``.
      thresholds: ``forgotten_drop``, ``learned_probability``.

    Returns:
      See the package. Null before the row's own stage has ended.
    """
    learned, drop = was_learned(thresholds), pl.col("own_drop")
    score = (
        pl.when(learned)
        .then(ramp(drop, thresholds["forgotten_drop"]))
        .when(learned.not_())
        .then(0.0)
    )
    lost = pl.format(
        "{} at the end of its own stage; probability a token {} then, {} now: "
        "fell by {} (flagged from {}); first visited at {} of the sequence",
        pl.when("learned_own_stage")
        .then(pl.lit("reproduced exactly"))
        .otherwise(pl.lit("learned in part")),
        number(pl.col("own_stage_prob")),
        number(pl.col("prob")),
        number(drop),
        pl.lit(thresholds["forgotten_drop"]),
        number(pl.col("position")),
    )
    never = pl.format(
        "not reproduced at the end of its own stage, and its probability a token was {} there "
        "(learned in part from {}): nothing to forget",
        number(pl.col("own_stage_prob")),
        pl.lit(thresholds["learned_probability"]),
    )
    return verdicts(known(signals), score, pl.when(learned).then(lost).otherwise(never), NEEDS)


def mark(signals: pl.DataFrame, thresholds: Mapping[str, Any]) -> pl.Series:
    """The flag's evidence for the separation table: the drop alone, among once-learned rows.

    Rows not learned at their own stage's end are null, so that learned and unlearned rows are
    compared on the same footing. A drop and being unlearned now share the present
    probability: some separation is built in, and a failure to separate says the more.

    Args:
      signals: as for `judge`.
      thresholds: as for `judge`.

    Returns:
      One boolean a row of ``signals``.
    """
    found = pl.when(was_learned(thresholds)).then(
        pl.col("own_drop") >= thresholds["forgotten_drop"]
    )
    return known(signals).select(found.alias("mark"))["mark"]


def was_learned(thresholds: Mapping[str, Any]) -> pl.Expr:
    """Whether a row was learned at the end of its own stage, in part at least; see `judge`."""
    half = pl.col("own_stage_prob") >= thresholds["learned_probability"]
    return pl.col("learned_own_stage") | half.fill_null(False)
