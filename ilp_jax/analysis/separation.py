"""Whether a cause's flag tells unlearned rows from learned ones of like length.

A flag that is raised as often on rows that were learned explains nothing. Answer length
stands behind most signals, so learned rows are compared as if they had the lengths of the
unlearned ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from scipy.stats import norm

from ilp_jax.analysis.shares import CONFIDENCE, point_order

SEPARATES = "separates"
SAME = "does not separate"
TOO_FEW = "too few to tell"
NEVER = "never raised"
LENGTH_BREAKS = (1, 3, 6, 12)
"""Bins of response tokens: 1, 2-3, 4-6, 7-12, 13 and more."""
_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


def separate(
    found: pl.DataFrame,
    marked: pl.DataFrame,
    trained: pl.DataFrame,
    lengths: pl.DataFrame,
    causes: Sequence[str],
    thresholds: Mapping[str, Any],
) -> pl.DataFrame:
    """Compares how often each flag is raised among unlearned and among learned rows.

    Per detector, point and cause. The rate among learned rows is directly standardised: the
    mean over length bins of their rate there, weighted by the unlearned rows of the bin. It
    rests on n_effective = (sum w)^2 / sum (w^2 / l) rows (Kish 1965; w unlearned and l learned
    rows of a bin). Bins with rows of one side only are left out and counted. Intervals are
    Wilson's, with n_effective for the learned; that of the difference is Newcombe's hybrid
    score (1998, method 10). All of it is deterministic: nothing is drawn.

    The verdict is ``separates`` where the interval of the difference lies above 0, whatever
    n; else ``too few to tell`` with fewer than separation_min_rows on a side, else ``does not
    separate``. Only the last keeps a flag from deciding: with too few rows the thresholds
    stand as they were set elsewhere, and the summary says so. No correction is made for the
    number of comparisons.

    Args:
      found: ``example_id``, ``point``, ``detector``, ``unlearned``.
      marked: ``example_id``, ``point`` and for each cause a boolean ``mark_``; null rows do not
        take part.
      trained: ``example_id``, ``point``, ``trained``; rows not trained by then do not take part.
      lengths: ``example_id``, ``response_tokens``.
      causes: the causes, in the order in which the table lists them.
      thresholds: ``require_separation``, ``separation_min_rows``.

    Returns:
      One row a detector, point and cause: ``n_unlearned``, ``flagged_unlearned``,
      ``rate_unlearned``, ``low_unlearned``, ``high_unlearned``, ``n_learned``,
      ``n_effective``, ``flagged_learned``, ``rate_learned``, ``low_learned``,
      ``high_learned``, ``n_unmatched`` (unlearned rows of lengths that no learned row has),
      ``difference``, ``low``, ``high``, ``verdict``, ``decides``.
    """
    tokens = pl.col("response_tokens")
    bins = pl.when(tokens.is_not_null()).then(
        pl.sum_horizontal((tokens > top).cast(pl.Int64) for top in LENGTH_BREAKS)
    )
    rows = (
        found.drop_nulls("unlearned")
        .join(trained.filter("trained"), on=("example_id", "point"))
        .join(marked, on=("example_id", "point"))
        .join(
            lengths.select("example_id", bins.fill_null(-1).alias("bin")).unique("example_id"),
            on="example_id",
            how="left",
        )
    )
    out = []
    for cause in causes:
        mark, lost = pl.col(f"mark_{cause}"), pl.col("unlearned")
        cells = (
            rows.filter(mark.is_not_null())
            .group_by("detector", "point", "bin")
            .agg(
                lost.sum().alias("n_unlearned"),
                (lost & mark).sum().alias("flagged_unlearned"),
                (~lost).sum().alias("n_learned"),
                (~lost & mark).sum().alias("flagged_learned"),
            )
            .sort("detector", "point", "bin")
        )
        asked = rows.select("detector", "point").unique(maintain_order=True)
        known = {key: part.to_dicts() for key, part in cells.group_by("detector", "point")}
        for key in asked.iter_rows():
            detector, point = key
            figures = compare(known.get(key, []), thresholds["separation_min_rows"])
            decides = figures["verdict"] != SAME or not thresholds["require_separation"]
            one = {"detector": detector, "point": point, "cause": cause}
            out.append(one | figures | {"decides": decides})
    out.sort(key=lambda one: (one["detector"], point_order(one["point"])))
    return pl.DataFrame(out, schema=_SCHEMA)


def compare(bins: Sequence[Mapping[str, int]], min_rows: int) -> dict[str, Any]:
    """The figures of one cell of the table; see `separate`.

    Args:
      bins: for each length bin ``n_unlearned``, ``flagged_unlearned``, ``n_learned``,
        ``flagged_learned``.
      min_rows: rows on either side from which on "does not separate" may be said.
    """
    both = [b for b in bins if b["n_unlearned"] and b["n_learned"]]
    n_unlearned = sum(b["n_unlearned"] for b in both)
    out = {
        "n_unlearned": n_unlearned,
        "flagged_unlearned": sum(b["flagged_unlearned"] for b in both),
        "n_learned": sum(b["n_learned"] for b in both),
        "flagged_learned": sum(b["flagged_learned"] for b in both),
        "n_unmatched": sum(b["n_unlearned"] for b in bins) - n_unlearned,
        "verdict": TOO_FEW,
    }
    if not any(b["flagged_unlearned"] or b["flagged_learned"] for b in bins):
        out["verdict"] = NEVER
    if not both:
        return out
    rate = out["flagged_unlearned"] / n_unlearned
    weighted = sum(b["n_unlearned"] * b["flagged_learned"] / b["n_learned"] for b in both)
    rate_learned = weighted / n_unlearned
    n_effective = n_unlearned**2 / sum(b["n_unlearned"] ** 2 / b["n_learned"] for b in both)
    low, high = wilson(rate, n_unlearned)
    low_learned, high_learned = wilson(rate_learned, n_effective)
    difference = rate - rate_learned
    least = difference - math.hypot(rate - low, high_learned - rate_learned)
    most = difference + math.hypot(high - rate, rate_learned - low_learned)
    # Raised on none of the lengths that can be compared: nothing is known of it there.
    if out["flagged_unlearned"] or out["flagged_learned"]:
        enough = min(n_unlearned, n_effective) >= min_rows
        out["verdict"] = SEPARATES if least > 0 else SAME if enough else TOO_FEW
    return out | {
        "rate_unlearned": rate,
        "low_unlearned": low,
        "high_unlearned": high,
        "n_effective": n_effective,
        "rate_learned": rate_learned,
        "low_learned": low_learned,
        "high_learned": high_learned,
        "difference": difference,
        "low": least,
        "high": most,
    }


def wilson(rate: float, n: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a rate over n rows, which need not be whole."""
    centre = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    spread = _Z / (1 + _Z**2 / n) * math.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
    return max(0.0, min(rate, centre - spread)), min(1.0, max(rate, centre + spread))


_COUNTS = ("n_unlearned", "flagged_unlearned", "n_learned", "flagged_learned", "n_unmatched")
_RATES = (
    *("rate_unlearned", "low_unlearned", "high_unlearned", "n_effective", "rate_learned"),
    *("low_learned", "high_learned", "difference", "low", "high"),
)
_SCHEMA = {
    **dict.fromkeys(("detector", "point", "cause"), pl.String),
    **dict.fromkeys(_COUNTS, pl.Int64),
    **dict.fromkeys(_RATES, pl.Float64),
    "verdict": pl.String,
    "decides": pl.Boolean,
}
