"""Shares unlearned of each planted group and of its subclasses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis.planted import Planted
from ilp_jax.analysis.resample import spread
from ilp_jax.analysis.shares import share
from ilp_jax.stats.schema import PLANTED


def planted_shares(
    runs: Sequence[Planted], label: str, weights_BxU: np.ndarray
) -> list[dict[str, Any]]:
    """Shares unlearned at the end, over the trained rows of all runs together.

    Args:
      runs: of `resample.with_units`.
      label: the column of what a row belongs to, ``planted`` or ``belief``.
      weights_BxU: of `resample.draw`, over all units of the runs.

    Returns:
      One dict a cell: ``detector``, ``planted``, ``detail`` (None for all), ``n``,
      ``unlearned``, ``share``, its Wilson ``interval`` over rows, and ``resampled``, the 95%
      bootstrap interval over worlds and groups, which is wider where rows of a world or of a
      group go together; at a share of 0 or 1 it has no width, and Wilson's has.
    """
    rows = pl.concat([run.verdicts for run in runs])
    cells = []
    for (detector, group, detail), part in (
        *_parts(rows.with_columns(detail=pl.lit(None, pl.String)), label),
        *_parts(rows, label),
    ):
        found = share(part)
        if found:
            place = {"detector": detector, "planted": group, "detail": detail}
            cells.append(place | found | {"resampled": _resampled(part, weights_BxU)})
    return sorted(
        cells,
        key=lambda c: (c["detector"], PLANTED.index(c["planted"]), c["detail"] or ""),
    )


def _parts(rows: pl.DataFrame, label: str):
    return rows.group_by("detector", label, "detail")


def _resampled(rows: pl.DataFrame, weights_BxU: np.ndarray) -> list[float] | None:
    counts = rows.group_by("unit").agg(
        n=pl.len().cast(pl.Float32), unlearned=pl.col("unlearned").sum().cast(pl.Float32)
    )
    weights = weights_BxU[:, counts["unit"].to_numpy()]
    with np.errstate(invalid="ignore"):
        again = (weights @ counts["unlearned"].to_numpy()) / (weights @ counts["n"].to_numpy())
    return spread(again)
