"""Intervals of a difference of two shares that have a width where every row falls alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import norm

from ilp_jax.analysis.shares import CONFIDENCE

_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


def matched(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Centre and variance of the second share less the first, of the same rows.

    Agresti & Min (2005) for matched pairs: 1/2 is added to each cell.

    Args:
      gained: rows that count in the second alone.
      lost: rows that count in the first alone.
      n: rows, at least 0.
    """
    centre = (gained - lost) / (n + 2)
    return centre, (gained + lost + 1 - (gained - lost) ** 2 / (n + 2)) / (n + 2) ** 2


def independent(count: int, n: int, other_count: int, other_n: int) -> tuple[float, float]:
    """Centre and variance of one share less another, of different rows.

    Agresti & Caffo (2000): 1 is added to each cell.

    Args:
      count: rows that count, of the first share.
      n: its rows.
      other_count: rows that count, of the other.
      other_n: its rows.
    """
    one, other = (count + 1) / (n + 2), (other_count + 1) / (other_n + 2)
    return one - other, one * (1 - one) / (n + 2) + other * (1 - other) / (other_n + 2)


def span(centre: float, variance: float) -> list[float]:
    """The 95% interval of a difference, within [-1, 1].

    Args:
      centre: its middle.
      variance: of the difference.
    """
    half = _Z * math.sqrt(variance)
    return [max(centre - half, -1.0), min(centre + half, 1.0)]


def wider(resampled: Sequence[float] | None, plain: Sequence[float]) -> list[float] | None:
    """A bootstrap interval and one over rows, whichever reaches further at either end.

    The bootstrap gives no width to rows that all fall alike, and that over rows knows nothing of
    what rows have in common.

    Args:
      resampled: the first; None: not known, and then nothing is.
      plain: the second.
    """
    if resampled is None:
        return None
    return [min(resampled[0], plain[0]), max(resampled[1], plain[1])]
