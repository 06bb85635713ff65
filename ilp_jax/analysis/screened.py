"""Rows that were not drawn because the exact law says that they are surely learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ilp_jax.detect.screen import is_sampled, sure_probability, unlearned_probability


def screened(inference: pl.DataFrame, detect: Mapping[str, Any]) -> pl.DataFrame:
    """The rows that the detector ``sampled`` takes as learned without a drawn answer.

    Args:
      inference: answers with a ``point`` column.
      detect: the config's ``detect`` section.

    Returns:
      ``example_id``, ``point`` and ``p``, the probability that one answer drawn is the
      response: at points where answers are drawn, rows without one, of a p so high that
      drawing would call them unlearned with at most ``screen_probability``.
    """
    points = [
        point
        for point in inference["point"].unique().to_list()
        if is_sampled(detect.get("sampled_points", ()), point)
    ]
    of_points = inference.filter(pl.col("point").is_in(points), pl.col("mode") == "sample")
    drawn = of_points.filter(pl.col("seed").is_not_null()).select("example_id", "point").unique()
    return (
        of_points.filter(pl.col("seed").is_null())
        .join(drawn, on=("example_id", "point"), how="anti")
        .select("example_id", "point", pl.col("gold_logprob").exp().alias("p"))
        .filter(pl.col("p") >= sure_probability(detect))
        .sort("point", "example_id")
    )


def figures(inference: pl.DataFrame, detect: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the screen left out, and how many verdicts that may have cost.

    Args:
      inference: answers with a ``point`` column.
      detect: the config's ``detect`` section.

    Returns:
      One dict a point with such rows: ``point``, ``n`` (rows not drawn), ``probability`` (the
      most with which drawing would call one unlearned) and ``expected_unlearned`` (the sum of
      the exact probabilities: how many of them drawing is expected to call unlearned).
    """
    return figures_of(screened(inference, detect), detect)


def figures_of(rows: pl.DataFrame, detect: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As `figures`, of rows of `screened` by point and example."""
    out = []
    for (point,), part in rows.group_by("point", maintain_order=True):
        tails = unlearned_probability(part["p"].to_numpy(), detect)
        cell = {"point": point, "n": len(part), "probability": detect["screen_probability"]}
        out.append(cell | {"expected_unlearned": float(tails.sum())})
    return out
