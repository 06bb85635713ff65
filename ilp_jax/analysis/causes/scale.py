"""What the five judges share: the scale of scores, and the frame that they give."""

from __future__ import annotations

import polars as pl
import polars.selectors as cs

KEY = ("example_id", "point")
FLAGGED = 0.5
"""The score from which on a cause is flagged."""


def ramp(value: pl.Expr, threshold: float, top: float = 1.0) -> pl.Expr:
    """A signal as evidence: 0 at 0, 0.5 at the threshold, 1 at the top, linear between.

    Args:
      value: the larger, the more evidence; null stays null.
      threshold: above 0.
      top: value of full evidence, at least the threshold.

    Returns:
      A value in [0, 1], at least `FLAGGED` exactly where value >= threshold.
    """
    below = FLAGGED * value / threshold
    above = FLAGGED + (1 - FLAGGED) * (value - threshold) / max(top - threshold, 1e-300)
    reached = pl.when(value >= threshold).then(above.clip(FLAGGED, 1.0))
    # The last float below a half, so that rounding flags nothing short of the threshold.
    return reached.otherwise(below.clip(0.0, 0.49999999999999994))


def weakest(*evidence: pl.Expr) -> pl.Expr:
    """Evidence that needs all its parts: the least of them, null where one is null."""
    least = pl.min_horizontal(*evidence)
    return pl.when(pl.all_horizontal(one.is_not_null() for one in evidence)).then(least)


def strongest(*evidence: pl.Expr) -> pl.Expr:
    """Evidence that needs one of its parts: the most of them.

    Null where a part is null, unless another part reaches `FLAGGED` without it.
    """
    most = pl.max_horizontal(*evidence)
    known = pl.all_horizontal(one.is_not_null() for one in evidence)
    return pl.when(known | (most >= FLAGGED)).then(most)


def known(signals: pl.DataFrame) -> pl.DataFrame:
    """The signals with NaN as null, since both mean that nothing is known."""
    return signals.with_columns(cs.float().fill_nan(None))


def number(value: pl.Expr, digits: int = 2) -> pl.Expr:
    """A number as it stands in evidence; ``unknown`` for null."""
    return value.round(digits).cast(pl.String).fill_null("unknown")


def missing(signals: tuple[str, ...]) -> pl.Expr:
    """``not measured: a, b`` for those of a row's signals that are null."""
    absent = [pl.when(pl.col(name).is_null()).then(pl.lit(name)) for name in signals]
    return pl.format("not measured: {}", pl.concat_str(absent, separator=", ", ignore_nulls=True))


def verdicts(
    signals: pl.DataFrame,
    score: pl.Expr,
    evidence: pl.Expr,
    needs: tuple[str, ...],
    related_ids: pl.Expr | None = None,
    unknown: pl.Expr | None = None,
) -> pl.DataFrame:
    """The frame that a judge gives.

    Args:
      signals: a frame that has what the expressions read.
      score: the score; null where it cannot be told.
      evidence: text for rows whose score is known.
      needs: signals named as missing where the score is null.
      related_ids: examples that the evidence names; null by default.
      unknown: text for rows whose score is null, in place of what is missing; where this is
        null too, the missing signals are named.

    Returns:
      ``example_id``, ``point``, ``score``, ``flag``, ``evidence``, ``related_ids``.
    """
    nobody = pl.lit(None, pl.List(pl.Int64))
    return signals.with_columns(score.alias("_score")).select(
        *KEY,
        pl.col("_score").cast(pl.Float64).alias("score"),
        (pl.col("_score") >= FLAGGED).alias("flag"),
        pl.when(pl.col("_score").is_not_null())
        .then(evidence)
        .otherwise(missing(needs) if unknown is None else pl.coalesce(unknown, missing(needs)))
        .alias("evidence"),
        (nobody if related_ids is None else related_ids).alias("related_ids"),
    )
