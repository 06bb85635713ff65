"""How far two sets of unlearned examples agree: Jaccard index and Cohen's kappa."""

from __future__ import annotations

from typing import Any

import numpy as np

from ilp_jax.analysis.shares import CONFIDENCE

RESAMPLES = 2000
"""Bootstrap resamples behind an interval."""


def table_of(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Counts of rows by two verdicts.

    Args:
      one: bool [n].
      other: bool [n], on the same rows.

    Returns:
      int64 [4]: unlearned by both, by the first alone, by the second alone, by neither.
    """
    one, other = np.asarray(one, bool), np.asarray(other, bool)
    both = int((one & other).sum())
    return np.array(
        [both, one.sum() - both, other.sum() - both, (~one & ~other).sum()], dtype=np.int64
    )


def jaccard(table: np.ndarray) -> np.ndarray:
    """Shared part of two sets: |A and B| / |A or B| (Jaccard 1912).

    Args:
      table: [..., 4], of ``table_of``.

    Returns:
      float64 [...]; nan where both sets are empty.
    """
    both, first, second, _ = np.moveaxis(np.asarray(table, np.float64), -1, 0)
    with np.errstate(invalid="ignore"):
        return both / (both + first + second)


def kappa(table: np.ndarray) -> np.ndarray:
    """Agreement beyond chance, (p_o - p_e) / (1 - p_e) (Cohen 1960).

    Args:
      table: [..., 4], of ``table_of``.

    Returns:
      float64 [...]; nan where chance alone agrees fully (every verdict is the same).
    """
    both, first, second, neither = np.moveaxis(np.asarray(table, np.float64), -1, 0)
    n = both + first + second + neither
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (both + neither) / n
        shares = (both + first) / n, (both + second) / n
        chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)


def overlap(one: np.ndarray, other: np.ndarray, seed: int) -> dict[str, Any] | None:
    """Jaccard index and kappa of two sets of verdicts, with bootstrap intervals.

    Rows are drawn again with replacement, which is a multinomial draw of the four counts;
    the interval is the percentiles' (Efron 1979).

    Args:
      one: bool [n].
      other: bool [n], on the same rows.
      seed: of the bootstrap.

    Returns:
      ``n``, ``agree`` (share of equal verdicts), and ``jaccard`` and ``kappa``, each with
      ``value`` and 95% ``interval``, both None where it is not defined. None where n is 0.
    """
    table = table_of(one, other)
    n = int(table.sum())
    if not n:
        return None
    again = np.random.default_rng(seed).multinomial(n, table / n, size=RESAMPLES)
    return {
        "n": n,
        "agree": float((table[0] + table[3]) / n),
        "jaccard": spread(jaccard(table), jaccard(again)),
        "kappa": spread(kappa(table), kappa(again)),
    }


def spread(value: float | np.ndarray, resampled: np.ndarray) -> dict[str, Any]:
    """A statistic with its interval over resamples in which it is defined.

    Args:
      value: the statistic; nan where it is not defined.
      resampled: float [n_resamples].

    Returns:
      ``value`` and ``interval``, None where there is none.
    """
    if np.isnan(value):
        return {"value": None, "interval": None}
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    return {"value": float(value), "interval": [float(low), float(high)]}
