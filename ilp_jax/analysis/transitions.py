"""Examples that turn from right to wrong, and from wrong to right, between two moments.

Counted example by example: an average hides as many losses as there are gains (arXiv:2510.17776).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from ilp_jax.analysis.shares import interval


def transitions(
    verdicts: pl.DataFrame, moments: Sequence[str], groups: Sequence[tuple[Any, Any]]
) -> list[dict[str, Any]]:
    """Losses (1 -> 0) and gains (0 -> 1) between moments that follow each other.

    Args:
      verdicts: ``example_id``, ``detector``, ``point``, ``right``, ``stage``, ``source`` and
        ``n_options`` (options among which a wrong answer may be guessed right; null for none).
      moments: points in order.
      groups: (stage, source) pairs to count in; None stands for all.

    Returns:
      One dict a detector, group and pair of moments, over the rows asked at both: ``detector``,
      ``stage``, ``source``, ``before``, ``after``, ``n``, ``lost``, ``gained`` (counts),
      ``lost_share``, ``gained_share`` with ``lost_interval``, ``gained_interval`` (Wilson's 95%),
      and where all rows have options ``by_guessing`` (see there).
    """
    out = []
    for before, after in pairs_of(moments):
        first = verdicts.filter(pl.col("point") == before)
        second = verdicts.filter(pl.col("point") == after)
        both = first.join(
            second.select("example_id", "detector", pl.col("right").alias("right_after")),
            on=("example_id", "detector"),
        ).sort("detector", "example_id")
        for (detector,), rows in both.group_by("detector", maintain_order=True):
            for stage, source in groups:
                part = rows if stage is None else rows.filter(pl.col("stage") == stage)
                part = part if source is None else part.filter(pl.col("source") == source)
                if len(part):
                    cell = {"detector": detector, "stage": stage, "source": source}
                    out.append(cell | {"before": before, "after": after} | _counts(part))
    return out


def pairs_of(moments: Sequence[str]) -> list[tuple[str, str]]:
    """Moments that follow each other; of three or more also the first and the last."""
    pairs = list(zip(moments, moments[1:], strict=False))
    return [*pairs, (moments[0], moments[-1])] if len(moments) > 2 else pairs


def by_guessing(rows: pl.DataFrame) -> dict[str, float]:
    """What guessing alone contributes to losses and gains among k options.

    Each row is either known, then right, or guessed uniformly, then right with probability 1/k.
    Of accuracy a thus 1 - a = g (k - 1) / k with g the share guessed, and a share
    g / k = (1 - a) / (k - 1) is right by luck.

    * ``expected``: with knowledge and luck independent before and after, a loss by luck alone is
      lucky before and wrong after: (1 - a_before) (1 - a_after) / (k - 1). A gain by luck alone
      has the same probability, so their difference needs no correction. The chance-adjusted
      shares of arXiv:2510.17776 are described so, from accuracies before and after; the
      derivation is ours.
    * ``expected_joint``: with luck independent but knowledge not. Wrong both times are only
      rows guessed both times, p_00 = q ((k - 1) / k)^2, and such rows are lucky, then wrong with
      probability (k - 1) / k^2, so p_00 / (k - 1) of all rows.

    Neither holds for a model that is sure of the same wrong option twice, as an argmax often
    is: then losses by luck are fewer, and the adjusted shares too low.

    Args:
      rows: ``right``, ``right_after``, ``n_options``.

    Returns:
      Shares of the rows, summed over k: ``expected``, ``expected_joint``; ``lost_adjusted`` and
      ``gained_adjusted``, the observed shares less ``expected``, at least 0.
    """
    right, after = pl.col("right"), pl.col("right_after")
    of_k = rows.group_by("n_options", maintain_order=True).agg(
        pl.len().alias("n"),
        (1 - right.mean()).alias("wrong"),
        (1 - after.mean()).alias("wrong_after"),
        (~right & ~after).mean().alias("wrong_twice"),
    )
    weight = pl.col("n") / len(rows) / (pl.col("n_options") - 1)
    expected = of_k.select((weight * pl.col("wrong") * pl.col("wrong_after")).sum()).item()
    lost, gained = (rows.select(x.mean()).item() for x in (right & ~after, ~right & after))
    return {
        "expected": expected,
        "expected_joint": of_k.select((weight * pl.col("wrong_twice")).sum()).item(),
        "lost_adjusted": max(lost - expected, 0.0),
        "gained_adjusted": max(gained - expected, 0.0),
    }


def _counts(rows: pl.DataFrame) -> dict[str, Any]:
    n = len(rows)
    right, after = rows["right"], rows["right_after"]
    lost, gained = int((right & ~after).sum()), int((~right & after).sum())
    counts = {
        "n": n,
        "lost": lost,
        "lost_share": lost / n,
        "lost_interval": list(interval(lost, n)),
        "gained": gained,
        "gained_share": gained / n,
        "gained_interval": list(interval(gained, n)),
    }
    if rows["n_options"].null_count() == 0 and rows["n_options"].min() > 1:
        counts["by_guessing"] = by_guessing(rows)
    return counts
