"""Whole trainings side by side: what each brought back and lost, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis.remedies.drawn import Drawn, Share, difference
from ilp_jax.analysis.remedies.load import Tried
from ilp_jax.analysis.remedies.matrix import NONE
from ilp_jax.analysis.resample import spread
from ilp_jax.fields.mitigate import ARMS
from ilp_jax.stats.schema import CAUSES

ORACLE, DIAGNOSED = "oracle", "diagnosed"
UNIVERSAL = ("epochs", "oversample_all", "shuffle")
"""Arms that know of no cause, at equal compute."""


def arms(runs: Sequence[Tried], rows: pl.DataFrame, drawn: Drawn) -> list[dict]:
    """Each arm's outcome over all runs and seeds.

    Args:
      runs: the runs.
      rows: of `load.pooled`.
      drawn: the resamples.

    Returns:
      One dict an arm, in their order:

      * ``arm``, ``trainings``, ``steps`` and ``tokens`` a training;
      * ``recovered`` (of unlearned rows that have one of the five causes: the planted one where
        causes were planted), ``lost`` (of scored rows learned before, that the arm still trains)
        and ``mended`` (of the first, those unlearned on a paraphrase that was never trained and
        learned on it now), each ``n``, ``count``, ``share``, ``interval``; ``by_cause``;
      * ``deleted`` rows, and of them ``deleted_wrongly`` (None where nothing was planted);
      * ``net``: recovered less lost, a training, ``value`` and ``interval``; ``over_none``: more
        recovered than by the arm ``none``; ``diagnosed_over``: by how much more the arm
        ``diagnosed`` has of ``net``, in the trainings that have both (None where there are none);
      * the same with ``_all`` (``recovered_all``, ``lost_all``, ``mended_all``, ``net_all``,
        ``diagnosed_over_all``): of all trained rows, fillers and rows without a cause among them;
      * ``held_out``: questions never trained, ``gained`` and ``lost``; ``general_loss``.
    """
    found = []
    base = _outcomes(rows.filter(pl.col("arm") == NONE), drawn)
    for name in ARMS:
        own = rows.filter(pl.col("arm") == name)
        if own.is_empty():
            continue
        trainings = own.select("run", "seed").unique().height
        shares = _outcomes(own, drawn)
        held = own.filter(pl.col("role") == "held_out")
        losses = [one.general[key] for one in runs for key in one.general if key[0] == name]
        everything = _outcomes(own, drawn, everything=True)
        trainings_B = drawn.trainings(own)
        told = {key: one.told() | {"count": one.count} for key, one in shares.items()}
        told |= {f"{key}_all": one.told() | {"count": one.count} for key, one in everything.items()}
        found.append(
            {"arm": name, "trainings": trainings}
            | told
            | {
                "by_cause": _by_cause(own),
                "deleted": int(own["deleted"].sum()),
                "deleted_wrongly": _deleted_right(own),
                "net": _net(shares, trainings, trainings_B),
                "net_all": _net(everything, trainings, trainings_B),
                "over_none": difference(shares["recovered"], base["recovered"]),
                "diagnosed_over": _net_over(rows, name, drawn),
                "diagnosed_over_all": _net_over(rows, name, drawn, True),
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


def against_oracle(rows: pl.DataFrame, drawn: Drawn) -> dict[str, Any] | None:
    """Rows that come back by diagnosed causes, over those that come back by planted ones.

    Args:
      rows: of `load.pooled`.
      drawn: the resamples.

    Returns:
      ``diagnosed`` and ``oracle`` (rows that came back), ``trainings`` of each (runs and seeds that
      have both), ``value`` (their ratio) and ``interval``; None where no run has both.
    """
    sides, pairs = paired(rows, DIAGNOSED, ORACLE)
    shares = [_outcomes(side, drawn)["recovered"] for side in sides]
    found = [share.count for share in shares]
    if not pairs or not found[1]:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio_B = shares[0].total_B / shares[1].total_B
    return {
        "diagnosed": found[0],
        "oracle": found[1],
        "trainings": pairs,
        "value": found[0] / found[1],
        "interval": spread(np.where(np.isfinite(ratio_B), ratio_B, np.nan)),
    }


def paired(rows: pl.DataFrame, *names: str) -> tuple[list[pl.DataFrame], int]:
    """The rows of some arms in the trainings (run and seed) that all of them have.

    Args:
      rows: of `load.pooled`.
      names: the arms'.

    Returns:
      The rows of each, and how many such trainings there are.
    """
    key = ["run", "seed"]
    sides = [rows.filter(pl.col("arm") == name) for name in names]
    pairs = sides[0].select(key).unique()
    for side in sides[1:]:
        pairs = pairs.join(side.select(key).unique(), on=key)
    return [side.join(pairs, on=key, how="semi") for side in sides], len(pairs)


def counts(own: pl.DataFrame, drawn: Drawn) -> dict[str, Any]:
    """Rows recovered and lost a training of one arm, and what it cost.

    Args:
      own: its rows, of `load.pooled`.
      drawn: the resamples.

    Returns:
      ``trainings``, ``steps``, ``tokens``; ``recovered``, ``lost``, ``net`` and ``net_all``, each
      ``value`` and ``interval``: see `arms`.
    """
    trainings = own.select("run", "seed").unique().height
    trainings_B = drawn.trainings(own)
    shares, everything = (_outcomes(own, drawn, every) for every in (False, True))

    def each(share: Share) -> dict[str, Any]:
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled_B = np.where(trainings_B > 0, share.total_B / trainings_B, np.nan)
        return {"value": share.count / trainings, "interval": spread(resampled_B)}

    return {
        "trainings": trainings,
        "steps": float(own["steps"].mean()),
        "tokens": float(own["tokens"].mean()),
        "recovered": each(shares["recovered"]),
        "lost": each(shares["lost"]),
        "net": _net(shares, trainings, trainings_B),
        "net_all": _net(everything, trainings, trainings_B),
    }


def cause_column(rows: pl.DataFrame) -> pl.Expr:
    """The planted cause where causes were planted, else the diagnosed one.

    Args:
      rows: of `load.pooled`.
    """
    return pl.when(pl.col("planted").is_not_null()).then("planted").otherwise("cause")


def _outcomes(own: pl.DataFrame, drawn: Drawn, everything: bool = False) -> dict[str, Share]:
    """What came back and what was lost: of rows that count, or of all that are trained."""
    trained = own.filter(pl.col("role") == "train")
    counts = pl.lit(True) if everything else cause_column(own).is_in(CAUSES)
    unlearned = trained.filter(~pl.col("learned_before"), counts)
    scored = pl.lit(True) if everything else pl.col("scored")
    learned = trained.filter("learned_before", scored, ~pl.col("deleted"))
    learned = learned.with_columns(lost=~pl.col("learned_after"))
    asked = unlearned.filter(~pl.col("learned_before_paraphrase"))
    return {
        "recovered": Share(unlearned, "learned_after", drawn),
        "lost": Share(learned, "lost", drawn),
        "mended": Share(asked, "learned_after_paraphrase", drawn),
    }


def _net(shares: dict[str, Share], trainings: int, trainings_B: np.ndarray) -> dict[str, Any]:
    """Rows recovered less rows lost, a training."""
    value = (shares["recovered"].count - shares["lost"].count) / trainings
    total_B = shares["recovered"].total_B - shares["lost"].total_B
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled_B = np.where(trainings_B > 0, total_B / trainings_B, np.nan)
    return {"value": value, "interval": spread(resampled_B)}


def _net_over(
    rows: pl.DataFrame, name: str, drawn: Drawn, everything: bool = False
) -> dict[str, Any] | None:
    """Net of ``diagnosed`` less that of another arm, pairs of a run and seed."""
    sides, pairs = paired(rows, DIAGNOSED, name)
    if name == DIAGNOSED or not pairs:
        return None
    outcomes = [_outcomes(side, drawn, everything) for side in sides]
    nets = [one["recovered"].count - one["lost"].count for one in outcomes]
    totals = [one["recovered"].total_B - one["lost"].total_B for one in outcomes]
    trainings_B = drawn.trainings(sides[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled_B = np.where(trainings_B > 0, (totals[0] - totals[1]) / trainings_B, np.nan)
    return {"value": (nets[0] - nets[1]) / pairs, "interval": spread(resampled_B)}


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
