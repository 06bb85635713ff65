"""Shares of rows, and the same when worlds, groups of rows and trainings are drawn again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis import differences
from ilp_jax.analysis.resample import draw, spread


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """How often all that is resampled is in each of B resamples.

    Units (groups of rows that contradict each other) are drawn within worlds that are drawn; and
    crossed with them, where a run has arms of several seeds, its seeds are drawn too, the same for
    all its arms (Owen 2007: a row counts as often as its unit times its seed).

    Attributes:
      weights_BxU: float64, units.
      world_U: int64, the world of each unit.
      trainings_BxT: float64, trainings (run and seed), in the order of ``training``.
    """

    weights_BxU: np.ndarray
    world_U: np.ndarray
    trainings_BxT: np.ndarray

    def total(self, rows: pl.DataFrame, weights_N: np.ndarray | None = None) -> np.ndarray:
        """A sum over rows in each resample. float64 [B]

        Args:
          rows: with ``unit`` and ``training``.
          weights_N: what is summed; None: rows are counted.
        """
        shape = self.trainings_BxT.shape[1], self.weights_BxU.shape[1]
        place_N = rows["training"].to_numpy() * shape[1] + rows["unit"].to_numpy()
        sums_TxU = np.bincount(place_N, weights_N, minlength=shape[0] * shape[1]).reshape(shape)
        if (self.trainings_BxT == 1).all():
            return self.weights_BxU @ sums_TxU.sum(axis=0)
        own = np.flatnonzero(sums_TxU.any(axis=1))
        each_BxT = self.weights_BxU @ sums_TxU[own].T
        return (each_BxT * self.trainings_BxT[:, own]).sum(axis=1)

    def trainings(self, rows: pl.DataFrame) -> np.ndarray:
        """Trainings of some rows in each resample; those of a world as often as it was drawn. [B]

        Args:
          rows: with ``unit`` and ``training``.
        """
        total_B = np.zeros(len(self.weights_BxU))
        each = rows.group_by("training").agg(pl.col("unit").first())
        for training, unit in each.sort("training").iter_rows():
            units = self.world_U == self.world_U[unit]
            times_B = self.weights_BxU[:, units].sum(axis=1) / units.sum()
            total_B += times_B * self.trainings_BxT[:, training]
        return total_B


def drawn(rows: pl.DataFrame, world_U: np.ndarray, resamples: int, seed: int) -> Drawn:
    """Draws the resamples.

    Args:
      rows: of `load.pooled`.
      world_U: the same function's.
      resamples: B.
      seed: of the draws.
    """
    runs = rows.select("run", "training").unique().sort("training")["run"].to_numpy()
    trainings_BxT = np.ones((resamples, len(runs)))
    rng = np.random.default_rng([seed, 1])
    for run in np.unique(runs):
        (own,) = np.nonzero(runs == run)
        trainings_BxT[:, own] = rng.multinomial(
            len(own), np.full(len(own), 1 / len(own)), resamples
        )
    return Drawn(draw(world_U, resamples, seed).astype(np.float64), world_U, trainings_BxT)


class Share:
    """A share of rows, and the same in every resample.

    Args:
      rows: with ``unit`` and ``training``.
      column: the boolean whose share it is.
      drawn: the resamples.

    Attributes:
      n: rows.
      count: rows of which it is true.
      value: the share; None of no rows.
      total_B: float64 [B], rows of which it is true, in each resample.
      resampled_B: float64 [B], the share in each resample; nan where it has no rows.
    """

    def __init__(self, rows: pl.DataFrame, column: str, drawn: Drawn):
        yes = rows[column].to_numpy().astype(np.float64)
        self.n, self.count = len(rows), int(yes.sum())
        self.value = self.count / self.n if self.n else None
        self.total_B = drawn.total(rows, yes)
        rows_B = drawn.total(rows)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.resampled_B = np.where(rows_B > 0, self.total_B / rows_B, np.nan)

    def told(self) -> dict[str, Any]:
        """``n``, ``share``, ``interval``."""
        return {"n": self.n, "share": self.value, "interval": spread(self.resampled_B)}


def difference(one: Share, other: Share) -> dict[str, Any]:
    """One share less another: ``value`` and ``interval``.

    The interval is that of resampling both together, or Agresti & Caffo's over rows where that
    reaches further.
    """
    if one.value is None or other.value is None:
        return {"value": None, "interval": None}
    resampled = spread(one.resampled_B - other.resampled_B)
    plain = differences.independent(one.count, one.n, other.count, other.n)
    return {
        "value": one.value - other.value,
        "interval": differences.wider(resampled, differences.span(*plain)),
    }


def matched_difference(one: Share, other: Share, better: int, worse: int) -> dict[str, Any]:
    """As ``difference`` of the same rows twice, with Agresti & Min's interval for matched pairs.

    Args:
      one: a share.
      other: that of the same rows in another training.
      better: rows that count in the first alone.
      worse: rows that count in the other alone.
    """
    if one.value is None or other.value is None:
        return {"value": None, "interval": None}
    resampled = spread(one.resampled_B - other.resampled_B)
    plain = differences.span(*differences.matched(better, worse, one.n))
    return {
        "value": one.value - other.value,
        "interval": differences.wider(resampled, plain),
    }
