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

from ilp_jax.analysis.ranks import length_bin
from ilp_jax.analysis.shares import CONFIDENCE, point_order

SEPARATES = "separates"
SAME = "does not separate"
TOO_FEW = "too few to tell"
NEVER = "never raised"
UNMEASURED = "not measured"
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
    stand as they were set elsewhere, and the summary says so. A flag that no row has either
    raised or not is ``not measured``; one raised on no row is ``never raised``.

    Where several causes are at work, the unlearned rows of the commoner hide the rarer. So
    the causes that do not separate are compared again without the rows, learned or not, that
    bear a flag of those that do, and so on while one more is found; ``without`` names whose
    rows were left out. A verdict changes only to ``separates``. No correction is made for the
    number of comparisons.

    Args:
      found: ``example_id``, ``point``, ``detector``, ``unlearned``.
      marked: ``example_id``, ``point`` and for each cause booleans ``mark_``, what is compared
        (null rows do not take part), and ``flag_``.
      trained: ``example_id``, ``point``, ``trained``; rows not trained by then do not take part.
      lengths: ``example_id``, ``response_tokens``.
      causes: the causes, in the order in which the table lists them.
      thresholds: ``require_separation``, ``separation_min_rows``.

    Returns:
      One row a detector, point and cause: ``n_unlearned``, ``flagged_unlearned``,
      ``rate_unlearned``, ``low_unlearned``, ``high_unlearned``, ``n_learned``,
      ``n_effective``, ``flagged_learned``, ``rate_learned``, ``low_learned``,
      ``high_learned``, ``n_unmatched`` (unlearned rows of lengths that no learned row has),
      ``difference``, ``low``, ``high``, ``without`` (causes), ``verdict``, ``decides``.
    """
    return from_counts(counts(found, marked, trained, lengths, causes), causes, thresholds)


def counts(
    found: pl.DataFrame,
    marked: pl.DataFrame,
    trained: pl.DataFrame,
    lengths: pl.DataFrame,
    causes: Sequence[str],
) -> pl.DataFrame:
    """How many rows are alike in all that `separate` compares.

    The counts of parts of the examples may be added up.

    Returns:
      One row a ``detector``, ``point``, ``bin`` of length, ``unlearned`` and each cause's
      ``mark_`` and ``flag_``: ``n``.
    """
    bins = pl.when(pl.col("response_tokens").is_not_null()).then(length_bin())
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
    return rows.group_by(key_of(causes), maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n")
    )


def key_of(causes: Sequence[str]) -> list[str]:
    """The columns of `counts` but ``n``."""
    signs = (f"{sign}_{cause}" for cause in causes for sign in ("mark", "flag"))
    return ["detector", "point", "bin", "unlearned", *signs]


def from_counts(
    rows: pl.DataFrame, causes: Sequence[str], thresholds: Mapping[str, Any]
) -> pl.DataFrame:
    """The table of `separate` from the counts of all parts."""
    out = []
    for key, part in rows.group_by("detector", "point", maintain_order=True):
        table = _stepwise(part, causes, thresholds["separation_min_rows"])
        for cause, figures in table.items():
            decides = figures["verdict"] != SAME or not thresholds["require_separation"]
            one = {"detector": key[0], "point": key[1], "cause": cause}
            out.append(one | figures | {"decides": decides})
    out.sort(key=lambda one: (one["detector"], point_order(one["point"])))
    return pl.DataFrame(out, schema=_SCHEMA)


def _stepwise(
    rows: pl.DataFrame, causes: Sequence[str], min_rows: int
) -> dict[str, dict[str, Any]]:
    """The figures of each cause at one detector and point; see `separate`."""
    table = {c: compare(_bins(rows, c), min_rows) | {"without": []} for c in causes}
    known: list[str] = []
    while (now := [c for c in causes if table[c]["verdict"] == SEPARATES]) != known:
        known = now
        flagged = pl.any_horizontal(pl.col(f"flag_{c}").fill_null(False) for c in known)
        rest = rows.filter(~flagged)
        again = {c: compare(_bins(rest, c), min_rows) for c in causes if c not in known}
        table |= {
            c: figures | {"without": known}
            for c, figures in again.items()
            if figures["verdict"] == SEPARATES
        }
    return table


def _bins(rows: pl.DataFrame, cause: str) -> list[dict[str, int]]:
    mark, lost, n = pl.col(f"mark_{cause}"), pl.col("unlearned"), pl.col("n")
    in_bins = (
        rows.filter(mark.is_not_null())
        .group_by("bin")
        .agg(
            n.filter(lost).sum().alias("n_unlearned"),
            n.filter(lost & mark).sum().alias("flagged_unlearned"),
            n.filter(~lost).sum().alias("n_learned"),
            n.filter(~lost & mark).sum().alias("flagged_learned"),
        )
    )
    return in_bins.sort("bin").to_dicts()


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
    if not bins:
        out["verdict"] = UNMEASURED
    elif not any(b["flagged_unlearned"] or b["flagged_learned"] for b in bins):
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
    "without": pl.List(pl.String),
    "verdict": pl.String,
    "decides": pl.Boolean,
}
