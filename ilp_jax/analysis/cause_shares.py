"""How often each cause was given: the figures of ``summary.json`` under ``causes``."""

from __future__ import annotations

from typing import Any

import polars as pl

from ilp_jax.analysis.shares import interval, point_order
from ilp_jax.analysis.unlearned import DEFAULT
from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED

TOLD = (*CAUSES, UNATTRIBUTED)


def cause_shares(
    diagnosis: pl.DataFrame, trained: pl.DataFrame, examples: pl.DataFrame, plan: pl.DataFrame
) -> list[dict[str, Any]]:
    """Counts and shares of causes among the unlearned rows, by stage and by source.

    Args:
      diagnosis: rows of ``diagnosis.parquet`` of methods that tell causes.
      trained: what ``cascade.trained_by_then`` gave; rows not trained by then do not count.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.

    Returns:
      One dict a cell with unlearned rows: ``detector`` (``default``: each row by its default
      detector), ``point``, ``method``, ``stage`` and ``source`` (None for all; not both),
      ``n`` (unlearned rows) and ``causes``: of each cause given there ``count``, ``share`` of
      n and its Wilson ``interval``. An example of several stages counts in each.
    """
    return cells(cause_counts(diagnosis, trained, examples, plan))


KEY = ("detector", "point", "method", "stage", "source")


def cause_counts(
    diagnosis: pl.DataFrame, trained: pl.DataFrame, examples: pl.DataFrame, plan: pl.DataFrame
) -> pl.DataFrame:
    """The counts behind `cause_shares`, which may be added up over parts of the examples.

    Returns:
      ``KEY``, ``n`` and one column a cause.
    """
    rows = (
        pl.concat([diagnosis, default_rows(diagnosis)])
        .filter(pl.col("unlearned"))
        .join(trained.filter("trained"), on=("example_id", "point"))
        .join(examples.select("example_id", "source"), on="example_id", how="left")
    )
    stages = plan.select("example_id", "stage").unique()
    return pl.concat(
        [
            _counts(rows, ()),
            _counts(rows, ("source",)),
            _counts(rows.join(stages, on="example_id"), ("stage",)),
        ]
    )


def cells(counts: pl.DataFrame) -> list[dict[str, Any]]:
    """The cells of `cause_shares` from the counts of all parts."""
    out = [
        {name: row[name] for name in KEY}
        | {"n": row["n"]}
        | {
            "causes": {
                cause: {
                    "count": row[cause],
                    "share": row[cause] / row["n"],
                    "interval": list(interval(row[cause], row["n"])),
                }
                for cause in TOLD
                if row[cause]
            }
        }
        for row in counts.iter_rows(named=True)
    ]
    return sorted(out, key=_place)


def default_rows(diagnosis: pl.DataFrame) -> pl.DataFrame:
    """Each example's rows by its default detector, under the detector's name ``default``.

    ``rouge_l`` where there is such a row, else ``exact_match`` where it applies, else
    ``choice``: as ``unlearned.by_default``, but keeping the cause.

    Args:
      diagnosis: rows of ``diagnosis.parquet``.
    """
    exact = (pl.col("detector") == "exact_match") & pl.col("unlearned").is_not_null()
    rank = (
        pl.when(pl.col("detector") == "rouge_l").then(0).when(exact).then(1)
        .when(pl.col("detector") == "choice").then(2)
    )  # fmt: skip
    return (
        diagnosis.with_columns(rank.alias("_rank"))
        .drop_nulls("_rank")
        .sort("_rank", maintain_order=True)
        .unique(("example_id", "point", "method"), keep="first", maintain_order=True)
        .with_columns(pl.lit(DEFAULT).alias("detector"))
        .drop("_rank")
    )


def _counts(rows: pl.DataFrame, by: tuple[str, ...]) -> pl.DataFrame:
    counts = rows.group_by(*KEY[:3], *by).agg(
        pl.len().cast(pl.Int64).alias("n"),
        *((pl.col("cause") == cause).sum().cast(pl.Int64).alias(cause) for cause in TOLD),
    )
    absent = {"stage": pl.Int32, "source": pl.String}
    columns = [
        pl.col(name).cast(absent[name]) if name in by else pl.lit(None, absent[name]).alias(name)
        for name in KEY[3:]
    ]
    return counts.select(*KEY[:3], *columns, "n", *TOLD)


def _place(cell: dict[str, Any]) -> tuple:
    return (
        cell["detector"],
        point_order(cell["point"]),
        cell["method"],
        cell["stage"] or 0,
        cell["source"] or "",
    )
