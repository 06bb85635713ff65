"""Backward and forward transfer between stages, with intervals.

R[i, t] is the share of the rows of stage t that are right at the end of stage i; a row counts in
the last stage that trains on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ilp_jax.analysis.differences import matched, span

BASE, FINAL = "base", "final"


def transfer(
    verdicts: pl.DataFrame, stages: Sequence[int], asked: set[str]
) -> list[dict[str, Any]]:
    """Backward and forward transfer (GEM: Lopez-Paz & Ranzato 2017, arXiv:1706.08840).

    * BWT = mean over t < T of R[T, t] - R[t, t]; below 0: forgetting. The paper divides by T - 1,
      its code by T, the last term being 0: that is ``backward_with_last``.
    * FWT = mean over t > 1 of R[t-1, t] - b_t, with b_t the base model's share right (there that
      of random parameters), over rows that no earlier stage has trained.

    Each stage's difference is over the rows judged at both moments. Its interval is Agresti &
    Min's (2005) for matched pairs, 1/2 added to each cell; that of the mean treats stages as
    independent. Neither holds more than this one run's examples.

    Args:
      verdicts: ``example_id``, ``detector``, ``point``, ``right``, ``stage`` (the last that
        trains on the row), ``first_stage``.
      stages: stages in order.
      asked: the points that have verdicts.

    Returns:
      One dict a detector: ``detector``, ``backward``, ``backward_interval``,
      ``backward_with_last``, ``forward``, ``forward_interval``, ``final`` (mean over stages of
      R[T, t]), ``stages`` (for each: ``stage``, ``n``, ``own``, ``end``, ``backward``,
      ``interval``); null where undefined. Empty with fewer than two stages.
    """
    if len(stages) < 2:
        return []
    last = f"stage_{stages[-1]}" if f"stage_{stages[-1]}" in asked else FINAL
    out = []
    for (detector,), rows in verdicts.sort("detector").group_by("detector", maintain_order=True):
        right = rows.select("example_id", "stage", "first_stage", "point", "right")
        back = {t: _change(right, t, f"stage_{t}", last) for t in stages[:-1]}
        # Rows that an earlier stage has trained say nothing of transfer to new ones.
        new = right.filter(pl.col("first_stage") == pl.col("stage"))
        ahead = {t: _change(new, t, BASE, f"stage_{t - 1}") for t in stages[1:]}
        at_end = {
            t: right.filter(pl.col("stage") == t, pl.col("point") == last)["right"].mean()
            for t in stages
        }
        backward = _mean_change(back)
        known = all(share is not None for share in at_end.values())
        out.append(
            {
                "detector": detector,
                "backward": backward["change"],
                "backward_interval": backward["interval"],
                "backward_with_last": None
                if backward["change"] is None
                else backward["change"] * len(back) / len(stages),
                "forward": _mean_change(ahead)["change"],
                "forward_interval": _mean_change(ahead)["interval"],
                "final": sum(at_end.values()) / len(stages) if known else None,
                "stages": [
                    {
                        "stage": t,
                        "n": change["n"],
                        "own": change["before"],
                        "end": change["after"],
                        "backward": change["change"],
                        "interval": change["interval"],
                    }
                    for t, change in back.items()
                    if change
                ],
            }
        )
    return out


def _change(right: pl.DataFrame, stage: int, before: str, after: str) -> dict[str, Any]:
    """Change of a stage's share right, over the rows judged at both points; {} without any."""
    of_stage = right.filter(pl.col("stage") == stage)
    first, second = (
        of_stage.filter(pl.col("point") == point).select("example_id", "right")
        for point in (before, after)
    )
    both = first.join(second, on="example_id", suffix="_after")
    if both.is_empty():
        return {}
    n = len(both)
    gained = int((~both["right"] & both["right_after"]).sum())
    lost = int((both["right"] & ~both["right_after"]).sum())
    centre, variance = matched(gained, lost, n)
    return {
        "n": n,
        "before": both["right"].mean(),
        "after": both["right_after"].mean(),
        "change": (gained - lost) / n,
        "centre": centre,
        "variance": variance,
        "interval": span(centre, variance),
    }


def _mean_change(changes: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    if not changes or not all(changes.values()):
        return {"change": None, "interval": None}
    k = len(changes)
    mean = {
        name: sum(change[name] for change in changes.values()) / k
        for name in ("change", "centre", "variance")
    }
    return {"change": mean["change"], "interval": span(mean["centre"], mean["variance"] / k)}
