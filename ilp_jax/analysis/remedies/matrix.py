"""The matrix of causes and remedies, from rows that were dealt remedies at random in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from scipy.stats import binomtest

from ilp_jax.analysis.remedies.drawn import Drawn, Share, difference, matched_difference
from ilp_jax.stats.schema import CAUSES

RANDOMISED, SHAM, NONE = "randomised", "sham", "none"
ALPHA = 0.05


def matrix(rows: pl.DataFrame, drawn: Drawn) -> list[dict[str, Any]]:
    """Every cause under every remedy and under none.

    Args:
      rows: of `load.pooled`: unlearned rows that count.
      drawn: the resamples.

    Returns:
      One dict a cause and remedy (``none`` first) that rows were dealt to: ``n``, ``treated``
      (rows for which there was something to do), ``share`` recovered with ``interval``,
      ``paraphrase`` (``n``, ``share`` recovered on a paraphrase that was never trained, of those
      unlearned on it before) and, but for ``none``, ``over_none``: the difference from rows of
      the cause dealt none, and ``over_sham``: from the same rows under the remedy's sham. Both
      have ``value`` and ``interval``; ``over_sham`` also ``better`` and ``worse`` (rows that
      recovered under one alone), ``p`` (McNemar's exact test, 1947; each seed and run its own
      pairs) and ``p_holm`` (Holm 1979, over all cells).
    """
    dealt = rows.filter(pl.col("arm") == RANDOMISED, pl.col("remedy").is_not_null())
    sham = rows.filter(pl.col("arm") == SHAM).select(
        "run", "seed", "example_id", sham_after="learned_after"
    )
    dealt = dealt.join(sham, on=("run", "seed", "example_id"), how="left", maintain_order="left")
    cells = []
    for cause in CAUSES:
        of = dealt.filter(pl.col("cause") == cause)
        none = Share(of.filter(pl.col("remedy") == NONE), "learned_after", drawn)
        for remedy in (NONE, *CAUSES):
            own = of.filter(pl.col("remedy") == remedy)
            if not own.is_empty():
                cells.append(_cell(cause, remedy, own, none, drawn))
    _add_holm(cells)
    return cells


def diagonal(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each cause its own remedy, beside the best of the others.

    Args:
      cells: of `matrix`.

    Returns:
      One dict a cause that has its own remedy's cell: that cell, ``none`` (the cell or None),
      ``best_other`` (the cell with the largest share of the other four, or None) and
      ``is_maximum``.
    """
    of = {(cell["cause"], cell["remedy"]): cell for cell in cells}
    found = []
    for cause in CAUSES:
        if (cause, cause) not in of:
            continue
        others = [of[cause, other] for other in CAUSES if other != cause and (cause, other) in of]
        best = max(others, key=lambda cell: cell["share"], default=None)
        own = of[cause, cause]
        found.append(
            dict(own)
            | {
                "none": of.get((cause, NONE)),
                "best_other": best,
                "is_maximum": best is None or own["share"] >= best["share"],
            }
        )
    return found


def _cell(cause: str, remedy: str, own: pl.DataFrame, none: Share, drawn: Drawn) -> dict[str, Any]:
    share = Share(own, "learned_after", drawn)
    asked = own.filter(~pl.col("learned_before_paraphrase"))
    paraphrase = Share(asked, "learned_after_paraphrase", drawn).told()
    cell = {"cause": cause, "remedy": remedy, "treated": int(own["treated"].sum())}
    cell |= share.told() | {"paraphrase": paraphrase}
    if remedy == NONE:
        return cell
    pairs = own.drop_nulls("sham_after")
    paired = Share(pairs, "learned_after", drawn)
    sham = Share(pairs, "sham_after", drawn)
    better = int((pairs["learned_after"] & ~pairs["sham_after"]).sum())
    worse = int((~pairs["learned_after"] & pairs["sham_after"]).sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return cell | {
        "over_none": difference(share, none),
        "over_sham": matched_difference(paired, sham, better, worse)
        | {
            "sham": sham.value,
            "n": len(pairs),
            "better": better,
            "worse": worse,
            "p": p if len(pairs) else None,
        },
    }


def _add_holm(cells: Sequence[dict[str, Any]]) -> None:
    tested = [cell["over_sham"] for cell in cells if cell.get("over_sham", {}).get("n")]
    highest = 0.0
    for place, one in enumerate(sorted(tested, key=lambda one: one["p"])):
        highest = max(highest, min((len(tested) - place) * one["p"], 1.0))
        one["p_holm"] = highest
