"""From flags and scores to one cause a row: the first flag of an order that counts."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ilp_jax.stats.schema import DIAGNOSIS_SCHEMA, UNATTRIBUTED

BASE = "base"
KEY = ("example_id", "point")


def trained_by_then(signals: pl.DataFrame) -> pl.DataFrame:
    """Which rows had been visited when a point came.

    Args:
      signals: ``example_id``, ``point``, ``presentations`` (null in a run without training).

    Returns:
      ``example_id``, ``point`` and a boolean ``trained``: false at ``base`` and where the
      stage of the row had not begun.
    """
    begun = (pl.col("point") != BASE) & (pl.col("presentations").fill_null(1) > 0)
    return signals.select(*KEY, begun.alias("trained"))


def attribute(rows: pl.DataFrame, order: Sequence[str], method: str) -> pl.DataFrame:
    """Gives every unlearned row a cause.

    The cause is the first of the order whose flag is raised and counts, else
    ``unattributed``; so is every row that had not been trained when the point came, since
    nothing can have gone wrong yet. The runner-up is the highest score above 0 among the
    other causes that count, the earlier in the order where two are equal.

    Args:
      rows: ``example_id``, ``point``, ``detector``, ``unlearned`` (null where the detector does
        not apply), ``trained``, and for each cause ``score_``, ``flag_``, ``counts_`` (whether
        its flag may decide), ``evidence_`` and ``related_``.
      order: causes, first to last.
      method: what the rows are written under.

    Returns:
      The columns of ``DIAGNOSIS_SCHEMA``; cause, runner-up, related ids and evidence are null
      for rows that are not unlearned. A row without a cause has the evidence on all five.
    """
    raised = [pl.when(_raised(cause)).then(pl.lit(cause)) for cause in order]
    unlearned, trained = pl.col("unlearned").fill_null(False), pl.col("trained")
    cause = pl.when(trained).then(pl.coalesce(*raised, pl.lit(UNATTRIBUTED)))
    told = rows.with_columns(
        pl.when(unlearned).then(cause.fill_null(pl.lit(UNATTRIBUTED))).alias("cause"),
        pl.lit(method).alias("method"),
    )
    scores = [
        pl.when(pl.col(f"counts_{cause}") & (pl.col("cause") != cause))
        .then(pl.col(f"score_{cause}"))
        .fill_null(0.0)
        for cause in order
    ]
    told = told.with_columns(pl.concat_list(scores).alias("_scores"))
    names = pl.Series(list(order))
    best = pl.col("_scores").list.arg_max()
    second = pl.when(pl.col("_scores").list.max() > 0).then(
        best.replace_strict(list(range(len(order))), names, return_dtype=pl.String)
    )
    told = told.with_columns(
        pl.when(pl.col("cause").is_not_null() & trained).then(second).alias("runner_up"),
        pl.coalesce(_of_cause("related", order)).cast(pl.List(pl.Int64)).alias("related_ids"),
        _evidence(order).alias("evidence"),
    )
    return told.select(DIAGNOSIS_SCHEMA.names)


def wide(verdicts: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Joins the judges' frames: ``score_``, ``flag_``, ``evidence_`` and ``related_`` a cause.

    Args:
      verdicts: by cause, a frame as `causes` describes; all have the same rows.

    Returns:
      One row an example and point.
    """
    out = None
    for cause, frame in verdicts.items():
        renamed = frame.select(
            "example_id",
            "point",
            pl.col("score").alias(f"score_{cause}"),
            pl.col("flag").alias(f"flag_{cause}"),
            pl.col("evidence").alias(f"evidence_{cause}"),
            pl.col("related_ids").alias(f"related_{cause}"),
        )
        out = (
            renamed if out is None else out.join(renamed, on=KEY, how="left", maintain_order="left")
        )
    return out


def _raised(cause: str) -> pl.Expr:
    return pl.col(f"flag_{cause}").fill_null(False) & pl.col(f"counts_{cause}")


def _of_cause(column: str, order: Sequence[str]) -> list[pl.Expr]:
    return [pl.when(pl.col("cause") == cause).then(pl.col(f"{column}_{cause}")) for cause in order]


def _evidence(order: Sequence[str]) -> pl.Expr:
    """The cause's own; of an unattributed row what was looked at, cause by cause."""
    idle = pl.lit(" [flagged, but decides nothing in this run]")
    parts = [
        pl.format(
            "{}: {}{}",
            pl.lit(cause.replace("_", " ")),
            pl.col(f"evidence_{cause}").fill_null("not told"),
            pl.when(pl.col(f"flag_{cause}").fill_null(False) & ~pl.col(f"counts_{cause}"))
            .then(idle)
            .otherwise(pl.lit("")),
        )
        for cause in order
    ]
    none = pl.format("no test explains it. {}", pl.concat_str(parts, separator=". "))
    return (
        pl.when(pl.col("cause").is_null())
        .then(pl.lit(None, pl.String))
        .when(~pl.col("trained"))
        .then(pl.lit("not trained yet at this point"))
        .when(pl.col("cause") == UNATTRIBUTED)
        .then(none)
        .otherwise(pl.coalesce(_of_cause("evidence", order)))
    )
