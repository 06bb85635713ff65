"""Figures with their number of rows and interval, as they stand in ``summary.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ilp_jax.analysis.shares import CONFIDENCE, interval


def share_of(count: int, total: int) -> dict[str, Any] | None:
    """A share of rows.

    Args:
      count: rows that have the property.
      total: rows.

    Returns:
      ``n``, ``count``, ``share`` and Wilson's 95% ``interval``; None where n is 0.
    """
    if not total:
        return None
    count, total = int(count), int(total)
    return {
        "n": total,
        "count": count,
        "share": count / total,
        "interval": list(interval(count, total)),
    }


def mean_of(values: Sequence[float] | np.ndarray) -> dict[str, Any] | None:
    """A mean over rows.

    Args:
      values: float [n], one a row.

    Returns:
      ``n``, ``mean`` and Student's 95% ``interval`` over rows (None for a single row); None
      where n is 0.
    """
    values = np.sort(np.asarray(values, np.float64))
    if not len(values):
        return None
    mean, spread = exact_mean(values), None
    if len(values) > 1:
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
        spread = [mean - half, mean + half]
    return {"n": len(values), "mean": mean, "interval": spread}


def exact_mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean, rounded once: the same in whatever order a join gave the rows.

    Args:
      values: float [n], n > 0.
    """
    return math.fsum(values) / len(values)


def below(threshold: float, n_runs: int) -> np.ndarray:
    """Which numbers of right answers are a share below a threshold.

    Args:
      threshold: ``detect.pass_threshold``.
      n_runs: answers an example.

    Returns:
      bool [n_runs + 1], by number of right answers.
    """
    return np.arange(n_runs + 1) / n_runs < threshold


def chance_below(p: np.ndarray, threshold: float, n_runs: int) -> np.ndarray:
    """P(share of right answers < threshold) when each of n is right with probability p.

    Args:
      p: float [n_rows].
      threshold: ``detect.pass_threshold``.
      n_runs: independent answers.

    Returns:
      float64 [n_rows], from the binomial distribution. For n = 5 and 0.2 it is (1 - p)^5.
    """
    counts = np.arange(n_runs + 1)[below(threshold, n_runs)]
    return stats.binom.pmf(counts[None], n_runs, np.asarray(p, np.float64)[:, None]).sum(axis=1)
