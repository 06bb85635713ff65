"""Trained rows of which the default detector says nothing, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from ilp_jax.analysis.shares import point_order
from ilp_jax.analysis.unlearned import DEFAULT

FIGURES = "default_verdicts"
"""Key of `figures` in ``summary.json``."""
_REASONS = ("long", "summary", "not_asked")


def last_point(points: Iterable[str]) -> str:
    """The last of the points that were asked, about which the verdict is.

    Args:
      points: their names; without any, ``final`` stands for what was never asked.
    """
    return max(points, key=point_order, default="final")


def counts(found: pl.DataFrame, trained: pl.DataFrame, point: str) -> dict[str, int]:
    """How many trained rows have a default verdict at a point; may be added up over parts.

    Args:
      found: verdicts (``unlearned.unlearned``), those of the default detector among them.
      trained: ``example_id`` of every trained row, once.
      point: the point.

    Returns:
      ``trained`` and ``known`` (rows with a verdict), and the others by reason: ``long`` (too
      long for exact match, and without options), ``summary`` (no answer was generated that
      ROUGE-L could judge), ``not_asked`` at this point.
    """
    at = found.filter(pl.col("point") == point)
    asked = trained.join(at, on="example_id", how="semi")
    default = at.filter(pl.col("detector") == DEFAULT).drop_nulls("unlearned")
    unknown = asked.join(default, on="example_id", how="anti")
    judged = at.filter(pl.col("detector") == "rouge_l")
    summaries = unknown.join(judged, on="example_id", how="semi")
    return {
        "trained": len(trained),
        "known": len(asked) - len(unknown),
        "long": len(unknown) - len(summaries),
        "summary": len(summaries),
        "not_asked": len(trained) - len(asked),
    }


def figures(
    parts: Iterable[Mapping[str, int]], point: str, detect: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``summary.json`` holds: `counts` of all parts, their point and the limit of length.

    Args:
      parts: of `counts`.
      point: the point.
      detect: the config's ``detect`` section.
    """
    parts = list(parts)
    total = {name: sum(one[name] for one in parts) for name in ("trained", "known", *_REASONS)}
    return {"point": point, **total, "longest": detect["exact_match_max_tokens"]}


def when(point: str) -> str:
    """``at the end``, or the point in words."""
    named = {"final": "at the end", "base": "before training, the only point that was asked"}
    return named.get(point, f"at the point {point}")


def sentence(told: Mapping[str, Any] | None) -> str:
    """Of which rows nothing is known, and why; empty where all are known.

    Args:
      told: of `figures`; None in a summary of an older version.
    """
    unknown = told["trained"] - told["known"] if told else 0
    if not unknown:
        return ""
    why = {
        "long": f"more than {told['longest']} tokens and no options, so that neither exact match "
        "nor choice applies",
        "summary": "summaries of which no answer was generated",
        "not_asked": "not asked",
    }
    reasons = "; ".join(f"{told[name]} {text}" for name, text in why.items() if told[name])
    of = "any of the" if not told["known"] else f"{unknown} of the"
    return (
        f"Whether {of} {told['trained']} trained rows stayed unlearned is not known by default "
        f"{when(told['point'])} ({reasons})."
    )
