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
    trained = plan.select("example_id", "stage").unique()
    rows = found.join(trained, on="example_id").join(
        examples.select("example_id", "source"), on="example_id"
    )
    cells = []
    for (point, detector), group in rows.group_by("point", "detector", maintain_order=True):
        whole = group.unique(("example_id",), keep="first")
        parts = [(None, None, whole)]
        parts += [(None, name, part) for (name,), part in whole.group_by("source")]
        parts += [(stage, None, part) for (stage,), part in group.group_by("stage")]
        parts += [(*key, part) for key, part in group.group_by("stage", "source")]
        for stage, source, part in parts:
            figures = share(part)
            if figures:
                cell = {"point": point, "detector": detector, "stage": stage, "source": source}
                cells.append(cell | figures)
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
    sources = examples.select("example_id", "source")
    final = found.filter(pl.col("point") == "final").drop("point")
    out = []
    for stage in sorted(plan["stage"].unique()):
        own = plan.filter(pl.col("stage") == stage).select("example_id")
        end = found.filter(pl.col("point") == f"stage_{stage}").drop("point")
        both = (
            end.join(own, on="example_id")
            .join(final, on=("example_id", "detector"), suffix="_final")
            .join(sources, on="example_id")
            .drop_nulls(("unlearned", "unlearned_final"))
        )
        for (detector,), rows in both.group_by("detector"):
            groups = [(None, rows)] + [(name, part) for (name,), part in rows.group_by("source")]
            for source, part in groups:
                learned, known = ~part["unlearned"], ~part["unlearned_final"]
                out.append(
                    {
                        "detector": detector,
                        "stage": int(stage),
                        "source": source,
                        "n": len(part),
                        "learned": int(learned.sum()),
                        "lost": int((learned & ~known).sum()),
                        "gained": int((~learned & known).sum()),
                        "learned_final": int(known.sum()),
                    }
                )
    return sorted(out, key=lambda row: (row["detector"], row["stage"], row["source"] or ""))


def point_order(point: str) -> tuple[int, int]:
    """Sorts points as a run meets them: base, epoch_K, stage_K, converged, final."""
    kinds = ("base", "epoch", "stage", "converged", "final")
    match = re.fullmatch(r"([a-z]+)(?:_(\d+))?", point)
    if not match or match[1] not in kinds:
        return len(kinds), 0
    return kinds.index(match[1]), int(match[2] or 0)
