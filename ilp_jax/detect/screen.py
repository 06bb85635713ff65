"""Which rows need no drawing: those that the exact law says are surely learned. No JAX here.

An answer drawn is the response with probability p, known from one forward pass. N answers are
drawn independently, and drawing calls a row unlearned when fewer than ``pass_threshold`` of
them are the response: a binomial tail that falls as p rises. So every row with p at or above
one bound has a tail of at most ``screen_probability``, and drawing it would tell next to
nothing. Where texts are compared after normalisation more answers count, and the tail is
smaller still.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import beta, binom


def is_sampled(sampled_points: Collection[str], point: str) -> bool:
    """Whether answers are drawn at a point; ``stage`` stands for the end of each.

    Args:
      sampled_points: ``config.detect.sampled_points``.
      point: name of the point's file, such as ``stage_2``.
    """
    return point in sampled_points or (point.startswith("stage_") and "stage" in sampled_points)


def unlearned_probability(p: np.ndarray, detect: Mapping[str, Any]) -> np.ndarray:
    """P(the share of N answers drawn that are the response is below ``pass_threshold``).

    Args:
      p: probability that one answer is the response.
      detect: the config's ``detect`` section (``n_samples``, ``pass_threshold``).

    Returns:
      float64, the exact binomial tail; (1 - p)^N with the defaults.
    """
    return binom.cdf(_most_right(detect), detect["n_samples"], p)


def sure_probability(detect: Mapping[str, Any]) -> float:
    """The p from which on ``unlearned_probability`` is at most ``screen_probability``.

    Args:
      detect: the config's ``detect`` section.

    Returns:
      That p, by the inverse of the binomial tail (a beta quantile; Clopper & Pearson 1934);
      infinity where ``screen_probability`` is 0 or absent: then every row is drawn.
    """
    allowed = detect.get("screen_probability", 0.0)
    if not allowed:
        return math.inf
    most = _most_right(detect)
    return float(beta.isf(allowed, most + 1, detect["n_samples"] - most))


def candidates(answers: pl.DataFrame, detect: Mapping[str, Any]) -> pl.Series:
    """Ids of the examples to draw: not surely learned, or wrong under teacher forcing.

    The second for the sake of the greedy answer, which is generated where teacher forcing
    found a wrong token.

    Args:
      answers: of one point, as ``detect.ask`` gives them.
      detect: the config's ``detect`` section.

    Returns:
      int64 ids, each once, in the table's order.
    """
    law = (pl.col("mode") == "sample") & pl.col("seed").is_null()
    unsure = ~(pl.col("gold_logprob").exp() >= sure_probability(detect))
    wrong = (pl.col("mode") == "greedy") & ~pl.col("correct")
    chosen = answers.filter((law & unsure) | wrong)
    return chosen["example_id"].unique(maintain_order=True)


def _most_right(detect: Mapping[str, Any]) -> int:
    """The most right answers of N with which a row still counts as unlearned."""
    n = detect["n_samples"]
    return sum(k / n < detect["pass_threshold"] for k in range(n + 1)) - 1
