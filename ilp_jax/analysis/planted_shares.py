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
    whole = rows.with_columns(detail=pl.lit(None, pl.String))
    keys = ("detector", label, "detail")
    parts = [
        (dict(zip(("detector", "planted", "detail"), key, strict=True)), part)
        for frame in (whole, rows)
        for key, part in frame.group_by(keys, maintain_order=True)
    ]
    spans = _resampled([part for _, part in parts], weights_BxU)
    cells = [
        place | (share(part) or {}) | {"resampled": span}
        for (place, part), span in zip(parts, spans, strict=True)
    ]
    return sorted(
        cells,
        key=lambda c: (c["detector"], PLANTED.index(c["planted"]), c["detail"] or ""),
    )


def _resampled(parts: Sequence[pl.DataFrame], weights_BxU: np.ndarray) -> list[list[float] | None]:
    n_units = weights_BxU.shape[1]
    counts = []
    for part in parts:
        units, unlearned = part["unit"].to_numpy(), part["unlearned"].to_numpy()
        counts += [np.bincount(some, minlength=n_units) for some in (units[unlearned], units)]
    sums = weights_BxU @ np.stack(counts, axis=1).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return spread(sums[:, ::2] / sums[:, 1::2])
