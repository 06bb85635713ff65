"""Does a cause told with probability p hold in a share p of the rows?"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from ilp_jax.stats.schema import CAUSES

BINS = 10
_AT_ONCE = 1 << 15  # rows of resamples held at once, so that they stay in the cache
CALIBRATED = ("model", "model_blind")
"""Methods whose scores are meant as probabilities."""


def told_with(rows: pl.DataFrame, label: str) -> tuple[np.ndarray, np.ndarray]:
    """With which probability each row's cause was told, and whether it is the true one.

    Of a row left unattributed its likeliest cause counts: its scores are read as well.

    Args:
      rows: ``cause`` and ``score_{cause}`` of a calibrated method, none of them null.
      label: the column of true causes.

    Returns:
      float64 [n] and bool [n].
    """
    names = np.array(CAUSES)
    scores_Nx5 = rows.select(f"score_{cause}" for cause in CAUSES).to_numpy()
    likeliest = pl.Series(names[scores_Nx5.argmax(axis=1)], dtype=pl.String)
    told = rows.select(
        pl.when(pl.col("cause").is_in(CAUSES)).then("cause").otherwise(likeliest).alias("told")
    )["told"]
    places = told.replace_strict(list(CAUSES), list(range(len(CAUSES))), return_dtype=pl.Int64)
    p = scores_Nx5[np.arange(len(rows)), places.to_numpy()]
    return p, (told == rows[label]).to_numpy()


def edges(n: np.ndarray | int, bins: int = BINS) -> np.ndarray:
    """Where bins of as equal a number of rows as can be end.

    Args:
      n: int [...], rows; the first n modulo bins of the bins get one more.
      bins: number of bins.

    Returns:
      float64 [..., bins + 1], from 0 to n.
    """
    n = np.asarray(n)[..., None]
    k = np.arange(bins + 1)
    return (k * (n // bins) + np.minimum(k, n % bins)).astype(np.float64)


def reliability(p: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Bins of equal mass over the probability told.

    Args:
      p: float [n].
      right: bool [n].

    Returns:
      A dict a bin that has rows, by rising probability: ``n``, ``told`` (mean probability)
      and ``right`` (share).
    """
    order = np.argsort(p, kind="stable")
    ends = edges(len(p)).astype(int)
    parts = [order[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True) if b > a]
    return [
        {"n": len(part), "told": float(p[part].mean()), "right": float(right[part].mean())}
        for part in parts
    ]


def ece(p: np.ndarray, right: np.ndarray) -> float | None:
    """Expected calibration error over bins of equal mass (Naeini et al. 2015, Nixon et al. 2019).

    The mean over rows of | mean probability told - share right | of the row's bin. It is not
    below 0 by chance alone, so with few rows even a calibrated method has some.

    Args:
      p: float [n].
      right: bool [n].

    Returns:
      The error; None without rows.
    """
    parts = reliability(p, right)
    if not parts:
        return None
    return sum(one["n"] * abs(one["told"] - one["right"]) for one in parts) / len(p)


def resampled_ece(
    p: np.ndarray, right: np.ndarray, unit_N: np.ndarray, weights_BxU: np.ndarray
) -> np.ndarray:
    """`ece` of each resample, its bins drawn anew.

    Args:
      p: float [n].
      right: bool [n].
      unit_N: int [n], the unit that each row is drawn with.
      weights_BxU: how often each unit is in each resample, whole numbers.

    Returns:
      float64 [B]; nan for a resample without rows. Higher on average than `ece` of the rows
      themselves, as a resample's chance is added to theirs.
    """
    order = np.argsort(p, kind="stable")
    gap_N, unit_N = (p - right)[order], unit_N[order]
    some = max(1, _AT_ONCE // max(1, len(p)))
    parts = [
        _errors(gap_N, weights_BxU[start : start + some, unit_N])
        for start in range(0, len(weights_BxU), some)
    ]
    return np.concatenate(parts)


def _errors(gap_N: np.ndarray, weights_BxN: np.ndarray) -> np.ndarray:
    """Errors of resamples of rows that are sorted by probability."""
    mass_BxM = _from_zero(weights_BxN.astype(np.float64))
    total_BxM = _from_zero(weights_BxN * gap_N)
    n_B = mass_BxM[:, -1]
    # All resamples one after another on one axis, so that one call interpolates them. A row
    # drawn several times may lie in two bins; the sum is linear within it.
    start_Bx1 = (np.arange(len(n_B)) * (n_B.max(initial=0.0) + 1))[:, None]
    ends_BxK = edges(n_B.astype(np.int64)) + start_Bx1
    at_ends = np.interp(ends_BxK.ravel(), (mass_BxM + start_Bx1).ravel(), total_BxM.ravel())
    gaps_B = np.abs(np.diff(at_ends.reshape(ends_BxK.shape))).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(n_B > 0, gaps_B / n_B, np.nan)


def _from_zero(steps_BxN: np.ndarray) -> np.ndarray:
    """Running sums with 0 in front: float64 [B, N + 1]."""
    out = np.zeros((len(steps_BxN), steps_BxN.shape[1] + 1))
    np.cumsum(steps_BxN, axis=1, out=out[:, 1:])
    return out
