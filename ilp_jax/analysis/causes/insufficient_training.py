"""Trained too little: of a rare kind, or improving and not trained to its stage's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ilp_jax.analysis.causes.scale import FLAGGED, known, number, ramp, strongest, verdicts, weakest

NEEDS = ("presentations", "pattern_relative", "rank_slope_end", "slope_end", "loss_fall_last")


def judge(signals: pl.DataFrame, thresholds: Mapping[str, Any]) -> pl.DataFrame:
    """Scores rarity, and improvement that was cut off.

    score = max(rare, improving), with

    * rare = ramp(1 - pattern_relative; 1 - rare_share, 1): its pattern stands in a small part of
      the rows in which that of a usual row does. Where every row's pattern is alone, as in most
      real text, the part is 1 and none is rare; 0 where the base model gives the response a
      probability of rare_known a token or more: what it can do already, it need not see often;
    * improving = ramp(loss_fall_last; falling_share, 1) where slope_end < 0, else 0, while
      the row's own stage is being trained: its loss fell by a real share over the last half
      of its visits, and more are to come (of 100 real rows unlearned after 2 epochs, 95 were
      learned after 8). Once the stage has ended, loss has fallen so for most rows; then it is
      the minimum of that and ramp(1 - rank_slope_end; 1 - falling_rank, 1), among the fastest
      of its length, and 0 for a row that was learned at that end: more training was not
      lacking then.

    Args:
      signals: ``presentations``, ``pattern_relative``, ``pattern_count``, ``slope_end``,
        ``rank_slope_end``, ``loss_fall_last``, ``loss_last``, ``learned_own_stage``,
        ``own_stage_prob`` (null while no stage of the row has ended), ``base_prob``.
      thresholds: ``rare_share``, ``rare_known``, ``falling_rank``, ``falling_share``.

    Returns:
      See the package. Null where the row has not been visited yet.
    """
    rows = known(signals).with_columns(
        rare(thresholds).alias("_rare"),
        pl.when(pl.col("learned_own_stage"))
        .then(0.0)
        .when(running())
        .then(falling(thresholds))
        .otherwise(improving(thresholds))
        .alias("_improving"),
    )
    visited = pl.col("presentations").fill_null(1) > 0
    evidence = pl.format(
        "its pattern stands in {} trained rows, {} of the usual (flagged up to {}), and the base "
        "model gives the response probability {} a token (known from {}); after {} "
        "visits its loss was {} nats a token, slope {} a visit, steeper than {} of the rows of "
        "its length (flagged from {}), having fallen by {} of itself over the last half "
        "(flagged from {}){}",
        number(pl.col("pattern_count")),
        number(pl.col("pattern_relative")),
        pl.lit(thresholds["rare_share"]),
        number(pl.col("base_prob"), 3),
        pl.lit(thresholds["rare_known"]),
        number(pl.col("presentations")),
        number(pl.col("loss_last")),
        number(pl.col("slope_end"), 3),
        number(1 - pl.col("rank_slope_end")),
        pl.lit(round(1 - thresholds["falling_rank"], 6)),
        number(pl.col("loss_fall_last")),
        pl.lit(thresholds["falling_share"]),
        pl.when(pl.col("learned_own_stage"))
        .then(pl.lit("; but it was reproduced exactly at the end of its own stage"))
        .when(running())
        .then(pl.lit("; its own stage was still being trained, so the fall alone is asked for"))
        .otherwise(pl.lit("")),
    )
    score = pl.when(visited).then(strongest(pl.col("_rare"), pl.col("_improving")))
    unvisited = pl.when(~visited).then(pl.lit("not visited yet"))
    return verdicts(rows, score, evidence, NEEDS, unknown=unvisited)


def mark(signals: pl.DataFrame, thresholds: Mapping[str, Any]) -> pl.Series:
    """The flag's evidence for the separation table: whether or not the row was learned.

    Leaves out the condition that it was not learned at its own stage's end, which would make
    learned and unlearned rows differ by itself. Rows whose own stage is still being trained
    are null: that their training is not over is a fact of the plan and needs no comparison.

    Args:
      signals: as for `judge`.
      thresholds: as for `judge`.

    Returns:
      One boolean a row of ``signals``.
    """
    visited = pl.col("presentations").fill_null(1) > 0
    both = strongest(rare(thresholds), improving(thresholds))
    compared = pl.when(visited & ~running()).then(both >= FLAGGED)
    return known(signals).select(compared.alias("mark"))["mark"]


def running() -> pl.Expr:
    """Whether a row was visited and no stage that trains it has ended yet."""
    return (pl.col("presentations") > 0).fill_null(False) & pl.col("own_stage_prob").is_null()


def rare(thresholds: Mapping[str, Any]) -> pl.Expr:
    """Evidence of rarity; see `judge`."""
    new = pl.col("base_prob").fill_null(0.0) < thresholds["rare_known"]
    fewer = ramp((1 - pl.col("pattern_relative")).clip(0.0), 1 - thresholds["rare_share"])
    return pl.when(new | fewer.is_null()).then(fewer).otherwise(0.0)


def falling(thresholds: Mapping[str, Any]) -> pl.Expr:
    """Evidence of a fall of the loss over the last half of the visits; see `judge`."""
    slope, fell = pl.col("slope_end"), pl.col("loss_fall_last")
    return (
        pl.when(slope < 0).then(ramp(fell, thresholds["falling_share"])).when(slope >= 0).then(0.0)
    )


def improving(thresholds: Mapping[str, Any]) -> pl.Expr:
    """Evidence of a fall that is fast among rows of like length; see `judge`."""
    steep = ramp(1 - pl.col("rank_slope_end"), 1 - thresholds["falling_rank"])
    both = weakest(steep, falling(thresholds))
    # A loss that does not fall is no improvement, whatever the others' do.
    return pl.when(pl.col("slope_end") >= 0).then(0.0).otherwise(both)
