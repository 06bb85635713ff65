"""Every stage's rows at every moment: share right by each detector, and mean probability.

A row counts in the last stage that trains on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from ilp_jax.analysis.figures import exact_mean
from ilp_jax.analysis.shares import interval


def matrices(
    verdicts: pl.DataFrame,
    moments: Sequence[str],
    stages: Sequence[int],
    sources: Sequence[str],
) -> list[dict[str, Any]]:
    """Share right of every stage's rows at every moment.

    Args:
      verdicts: ``detector``, ``point``, ``right``, ``stage``, ``source``.
      moments: points in order.
      stages: stages in order.
      sources: sources; each gets a matrix of its own where there are several.

    Returns:
      One dict a detector and source (None: all): ``detector``, ``source``, ``stages``,
      ``points``, and ``right``, ``n``, ``low``, ``high`` as lists of one list a stage, one value
      a point; shares with Wilson's 95% interval, null where n is 0.
    """
    counted = verdicts.group_by("detector", "source", "stage", "point").agg(
        pl.len().alias("n"), pl.col("right").sum().alias("right")
    )
    whole = counted.group_by("detector", "stage", "point").agg(pl.col("n", "right").sum())
    parts = [whole.with_columns(pl.lit(None, pl.String).alias("source")).select(counted.columns)]
    parts += [counted] if len(sources) > 1 else []
    cells = {
        (detector, source, stage, point): (n, right)
        for detector, source, stage, point, n, right in pl.concat(parts).iter_rows()
    }
    out = []
    for detector, source in sorted({key[:2] for key in cells}, key=lambda k: (k[0], k[1] or "")):
        grid = [[cells.get((detector, source, s, p), (0, 0)) for p in moments] for s in stages]
        spans = [[interval(r, n) if n else (None, None) for n, r in row] for row in grid]
        out.append(
            {
                "detector": detector,
                "source": source,
                "stages": list(stages),
                "points": list(moments),
                "right": [[r / n if n else None for n, r in row] for row in grid],
                "n": [[n for n, _ in row] for row in grid],
                "low": [[low for low, _ in row] for row in spans],
                "high": [[high for _, high in row] for row in spans],
            }
        )
    return out


def probabilities(
    known: pl.DataFrame, moments: Sequence[str], stages: Sequence[int]
) -> list[dict[str, Any]]:
    """The mean probability of every stage's rows at every moment: no verdict, nothing saturates.

    Args:
      known: rows of ``visits.probabilities``.
      moments: points in order.
      stages: stages in order.

    Returns:
      As ``matrices``, for all sources together, with ``detector`` = ``probability``; ``right``
      holds the mean over rows of the target's probability (geometric mean over its tokens), and
      there are no intervals. Empty where nothing was asked.
    """
    cells = {
        key: (exact_mean(rows["prob"].to_numpy()), len(rows))
        for key, rows in known.group_by("stage", "point")
    }
    if not cells:
        return []
    grid = [[cells.get((stage, point), (None, 0)) for point in moments] for stage in stages]
    return [
        {
            "detector": "probability",
            "source": None,
            "stages": list(stages),
            "points": list(moments),
            "right": [[p for p, _ in row] for row in grid],
            "n": [[n for _, n in row] for row in grid],
        }
    ]
