"""Whole trainings side by side: what each brought back and lost, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis.remedies.load import Tried
from ilp_jax.analysis.remedies.matrix import NONE, SHAM, Share, difference
from ilp_jax.analysis.resample import spread
from ilp_jax.fields.mitigate import ARMS
from ilp_jax.stats.schema import CAUSES

ORACLE, DIAGNOSED = "oracle", "diagnosed"
UNIVERSAL = ("epochs", "oversample_all", "shuffle")
"""Arms that know of no cause, at equal compute."""


def arms(runs: Sequence[Tried], rows: pl.DataFrame, weights_BxU: np.ndarray) -> list[dict]:
    """Each arm's outcome over all runs and seeds.

    Args:
      runs: the runs.
      rows: of `load.pooled`.
      weights_BxU: of `resample.draw`.

    Returns:
      One dict an arm, in their order: ``arm``, ``trainings``; ``recovered`` (of unlearned rows
      that have one of the five causes: the planted one where causes were planted), ``lost`` (of
      scored rows learned before, that the arm still trains) and ``mended`` (a paraphrase that
      was never trained is learned, of those unlearned before with their row), each ``n``,
      ``count``, ``share``, ``interval``; ``by_cause``; ``deleted`` rows, ``net`` (recovered less
      lost, a training) with its ``interval``; ``over_none``: more recovered than by the arm
      ``none``; ``held_out``: questions never trained, ``gained`` and ``lost``;
      ``general_loss``; ``steps`` and ``tokens`` a training.
    """
    found = []
    base = _outcomes(rows.filter(pl.col("arm") == NONE), weights_BxU)
    for name in ARMS:
        own = rows.filter(pl.col("arm") == name)
        if own.is_empty():
            continue
        trainings = own.select("run", "seed").unique().height
        shares = _outcomes(own, weights_BxU)
        held = own.filter(pl.col("role") == "held_out")
        losses = [one.general[key] for one in runs for key in one.general if key[0] == name]
        told = {key: one.told() | {"count": _count(one)} for key, one in shares.items()}
        found.append(
            {"arm": name, "trainings": trainings}
            | told
            | {
                "by_cause": _by_cause(own),
                "deleted": int(own["deleted"].sum()),
                "deleted_wrongly": _deleted_right(own),
                "net": _net(shares, weights_BxU, trainings),
                "over_none": difference(shares["recovered"], base["recovered"]),
                "held_out": {
                    "n": len(held),
                    "gained": int((~held["learned_before"] & held["learned_after"]).sum()),
                    "lost": int((held["learned_before"] & ~held["learned_after"]).sum()),
                },
                "general_loss": float(np.mean(losses)) if losses else None,
                "steps": float(own["steps"].mean()),
                "tokens": float(own["tokens"].mean()),
            }
        )
    return found


def cause_column(rows: pl.DataFrame) -> pl.Expr:
    """The planted cause where causes were planted, else the diagnosed one.

    Args:
      rows: of `load.pooled`.
    """
    return pl.when(pl.col("planted").is_not_null()).then("planted").otherwise("cause")


def _outcomes(own: pl.DataFrame, weights_BxU: np.ndarray) -> dict[str, Share]:
    trained = own.filter(pl.col("role") == "train")
    unlearned = trained.filter(~pl.col("learned_before"), cause_column(own).is_in(CAUSES))
    learned = trained.filter("learned_before", "scored", ~pl.col("deleted"))
    learned = learned.with_columns(lost=~pl.col("learned_after"))
    asked = unlearned.filter(~pl.col("learned_before_paraphrase"))
    return {
        "recovered": Share(unlearned, "learned_after", weights_BxU),
        "lost": Share(learned, "lost", weights_BxU),
        "mended": Share(asked, "learned_after_paraphrase", weights_BxU),
    }


def _count(share: Share) -> int:
    return round((share.value or 0.0) * share.n)


def _net(shares: dict[str, Share], weights_BxU: np.ndarray, trainings: int) -> dict[str, Any]:
    """Rows recovered less rows lost, a training."""
    value = (_count(shares["recovered"]) - _count(shares["lost"])) / trainings
    resampled_B = shares["recovered"].total_B - shares["lost"].total_B
    return {"value": value, "interval": spread(resampled_B / trainings)}


def _by_cause(own: pl.DataFrame) -> dict[str, Any]:
    rows = own.filter(~pl.col("learned_before"), pl.col("role") == "train")
    rows = rows.with_columns(of=cause_column(own)).filter(pl.col("of").is_in(CAUSES))
    return {
        cause: {"n": n, "share": share}
        for cause, n, share in rows.group_by("of")
        .agg(pl.len().alias("n"), pl.col("learned_after").mean().alias("share"))
        .sort("of")
        .iter_rows()
    }


def _deleted_right(own: pl.DataFrame) -> int | None:
    """Deleted rows that a planted study made right; None where nothing was planted."""
    if own["planted"].is_null().all():
        return None
    return int(own.filter("deleted", "scored").height)


__all__ = ["DIAGNOSED", "NONE", "ORACLE", "SHAM", "UNIVERSAL", "arms", "cause_column"]
