"""Shares of unlearned examples with their intervals, and what was learned and lost."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
from scipy.stats import binomtest

CONFIDENCE = 0.95


def interval(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share (Wilson 1927)."""
    # The p-value is not used, and is least work for the share itself.
    ci = binomtest(count, total, count / total).proportion_ci(CONFIDENCE, method="wilson")
    return float(ci.low), float(ci.high)


def share(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Share unlearned among the rows to which the detector applies.

    Args:
      rows: has a boolean ``unlearned``, null where the detector does not apply.

    Returns:
      ``n``, ``unlearned`` (a count), ``share`` and its ``interval``; None where n is 0.
    """
    verdicts = rows["unlearned"].drop_nulls()
    if verdicts.is_empty():
        return None
    count, total = int(verdicts.sum()), len(verdicts)
    return {
        "n": total,
        "unlearned": count,
        "share": count / total,
        "interval": list(interval(count, total)),
    }


COUNTED = ("point", "detector", "stage", "source")
TURNED = ("detector", "stage", "source")


def shares(found: pl.DataFrame, examples: pl.DataFrame, plan: pl.DataFrame) -> list[dict[str, Any]]:
    """Shares by point, detector, stage and source, over trained examples.

    Args:
      found: rows of ``unlearned.unlearned``.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.

    Returns:
      One dict a cell: ``point``, ``detector``, ``stage`` (None for all), ``source`` (None for
      all) and the fields of ``share``. An example of several stages counts in each.
    """
    return share_cells(share_counts(found, examples, plan))


def share_counts(found: pl.DataFrame, examples: pl.DataFrame, plan: pl.DataFrame) -> pl.DataFrame:
    """The counts behind `shares`, which may be added up over parts of the examples.

    Returns:
      ``COUNTED``, ``n`` (rows to which the detector applies) and ``unlearned``.
    """
    stages = plan.select("example_id", "stage").unique()
    rows = (
        found.drop_nulls("unlearned")
        .join(stages, on="example_id", how="semi")
        .join(examples.select("example_id", "source"), on="example_id")
    )
    of_stage = rows.join(stages, on="example_id")
    groups = [(rows, ()), (rows, ("source",)), (of_stage, ("stage",)), (of_stage, COUNTED[2:])]
    return pl.concat(_counted(part, COUNTED, by, ("unlearned",)) for part, by in groups)


def share_cells(counts: pl.DataFrame) -> list[dict[str, Any]]:
    """The cells of `shares` from the counts of all parts."""
    cells = [
        {name: row[name] for name in COUNTED}
        | {"n": row["n"], "unlearned": row["unlearned"], "share": row["unlearned"] / row["n"]}
        | {"interval": list(interval(row["unlearned"], row["n"]))}
        for row in counts.iter_rows(named=True)
    ]
    return sorted(
        cells,
        key=lambda c: (
            point_order(c["point"]),
            c["detector"],
            c["stage"] or 0,
            c["source"] or "",
        ),
    )


def learned_and_lost(
    found: pl.DataFrame, examples: pl.DataFrame, plan: pl.DataFrame
) -> list[dict[str, Any]]:
    """How many of each stage's rows were learned at its end, and how many of these lost.

    Args:
      found: rows of ``unlearned.unlearned``.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.

    Returns:
      One dict a detector, stage and source (None for all): ``n``, ``learned`` (at the end of
      the row's own stage), ``lost`` (of these, unlearned at ``final``), ``gained`` (unlearned
      at the stage's end, learned at ``final``), ``learned_final``.
    """
    return turned_cells(turned_counts(found, examples, plan))


def turned_counts(found: pl.DataFrame, examples: pl.DataFrame, plan: pl.DataFrame) -> pl.DataFrame:
    """The counts behind `learned_and_lost`, which may be added up over parts of the examples.

    Returns:
      ``TURNED``, ``n``, ``learned``, ``lost``, ``gained``, ``learned_final``.
    """
    stage = pl.col("point").str.extract(r"^stage_(\d+)$").cast(pl.Int32).alias("stage")
    own = plan.select("example_id", pl.col("stage").cast(pl.Int32)).unique()
    final = found.filter(pl.col("point") == "final").drop("point")
    learned, known = ~pl.col("unlearned"), ~pl.col("unlearned_final")
    both = (
        found.with_columns(stage)
        .drop_nulls("stage")
        .join(own, on=("example_id", "stage"))
        .join(final, on=("example_id", "detector"), suffix="_final")
        .join(examples.select("example_id", "source"), on="example_id")
        .drop_nulls(("unlearned", "unlearned_final"))
        .select(
            *TURNED,
            learned.alias("learned"),
            (learned & ~known).alias("lost"),
            (~learned & known).alias("gained"),
            known.alias("learned_final"),
        )
    )
    names = ("learned", "lost", "gained", "learned_final")
    groups = (("stage",), ("stage", "source"))
    return pl.concat(_counted(both, TURNED, by, names) for by in groups)


def turned_cells(counts: pl.DataFrame) -> list[dict[str, Any]]:
    """The cells of `learned_and_lost` from the counts of all parts."""
    rows = counts.to_dicts()
    return sorted(rows, key=lambda row: (row["detector"], row["stage"], row["source"] or ""))


def _counted(
    rows: pl.DataFrame, key: tuple[str, ...], by: tuple[str, ...], names: tuple[str, ...]
) -> pl.DataFrame:
    """How many rows, and of these how many have each property; other parts of the key null."""
    always = tuple(name for name in key if name not in ("stage", "source"))
    counts = rows.group_by(*always, *by).agg(
        pl.len().cast(pl.Int64).alias("n"), *(pl.col(name).sum().cast(pl.Int64) for name in names)
    )
    absent = {"stage": pl.Int32, "source": pl.String}
    columns = [
        pl.col(name).cast(absent.get(name, pl.String)) if name in (*always, *by)
        else pl.lit(None, absent[name]).alias(name)
        for name in key
    ]  # fmt: skip
    return counts.select(*columns, "n", *names)


def point_order(point: str) -> tuple[int, int]:
    """Sorts points as a run meets them: base, epoch_K, stage_K, converged, final."""
    kinds = ("base", "epoch", "stage", "converged", "final")
    match = re.fullmatch(r"([a-z]+)(?:_(\d+))?", point)
    if not match or match[1] not in kinds:
        return len(kinds), 0
    return kinds.index(match[1]), int(match[2] or 0)
