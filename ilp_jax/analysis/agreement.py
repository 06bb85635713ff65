"""How well the causes told agree with the causes planted: figures of ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis import calibration, confusion
from ilp_jax.analysis.confusion import TOLD, TRUE
from ilp_jax.analysis.figures import share_of
from ilp_jax.analysis.planted import Planted
from ilp_jax.analysis.resample import spread
from ilp_jax.stats.schema import CAUSES


def agreement(
    runs: Sequence[Planted], label: str, weights_BxU: np.ndarray
) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures by detector and method, over the unlearned rows of all runs together.

    Args:
      runs: of `resample.with_units`.
      label: the column of true causes, ``planted`` or ``belief``.
      weights_BxU: of `resample.draw`, over all units of the runs.

    Returns:
      By detector, then method (of those that any of the runs has):

      * ``n``: unlearned rows of the five causes; ``n_by_cause``; ``runs``: how many runs
        have this detector and method.
      * ``macro_f1``, and by cause ``recall``, ``precision``, ``f1``: `confusion.scores`.
      * ``confusion``: counts of unlearned rows, by true cause (five, ``fault``,
        ``control``), then told one (five, ``unattributed``).
      * ``unattributed``: `figures.share_of` of the rows left so, for ``causes`` (the five
        together: wrongly so), ``fault`` and ``control``.
      * ``recall_by_detail``: by cause and subclass, `figures.share_of` of the rows told right.
      * ``ece`` and ``reliability`` of methods with calibrated scores
        (`calibration.CALIBRATED`), over the same n rows; else None.
      * ``intervals``: 95% bootstrap intervals of ``macro_f1``, ``recall``, ``precision``,
        ``f1``, ``unattributed`` and ``ece``, in the same form. At a share of 0 or 1 such an
        interval has no width; the terminal's table widens it to Wilson's.

      None stands for what is not defined, such as the recall of a cause without rows.
    """
    told = pl.concat([run.told for run in runs]).filter(pl.col(label).is_in(TRUE))
    pairs = pl.concat([run.methods for run in runs]).group_by("detector", "method").len("runs")
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for detector, method, n_runs in pairs.sort("detector", "method").iter_rows():
        rows = told.filter(pl.col("detector") == detector, pl.col("method") == method)
        found = {"runs": n_runs, **_figures(rows, label, method, weights_BxU)}
        out.setdefault(detector, {})[method] = found
    return out


def _figures(
    rows: pl.DataFrame, label: str, method: str, weights_BxU: np.ndarray
) -> dict[str, Any]:
    units = confusion.per_unit(
        _places(rows[label], TRUE),
        _places(rows["cause"], TOLD),
        rows["unit"].to_numpy(),
        weights_BxU.shape[1],
    )
    counts = units.sum(axis=0)
    # Whole numbers in float32, so exact in any order of summation.
    again = (weights_BxU @ units.reshape(len(units), -1)).reshape(-1, *counts.shape)
    found, intervals = _scored(counts, again)
    of_causes = rows.filter(pl.col(label).is_in(CAUSES))
    found["recall_by_detail"] = _by_detail(of_causes, label)
    found |= {"ece": None, "reliability": None}
    intervals["ece"] = None
    if method in calibration.CALIBRATED:
        scored = of_causes.drop_nulls([f"score_{cause}" for cause in CAUSES])
        p, right = calibration.told_with(scored, label)
        found |= {
            "ece": calibration.ece(p, right),
            "reliability": calibration.reliability(p, right),
        }
        units = scored["unit"].to_numpy()
        intervals["ece"] = spread(calibration.resampled_ece(p, right, units, weights_BxU))
    return found | {"intervals": intervals}


def _scored(counts: np.ndarray, again: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """What follows from a confusion matrix [7, 6], and its intervals by resamples [B, 7, 6]."""
    here, there = confusion.scores(counts), confusion.scores(again)
    found: dict[str, Any] = {
        "n": int(counts[: len(CAUSES)].sum()),
        "n_by_cause": _by_cause(counts.sum(axis=1).astype(int).tolist()),
        "macro_f1": _number(here["macro_f1"]),
    }
    intervals: dict[str, Any] = {"macro_f1": spread(there["macro_f1"])}
    for name in ("recall", "precision", "f1"):
        found[name] = _by_cause([_number(value) for value in here[name]])
        intervals[name] = _by_cause(spread(there[name]))
    found["confusion"] = {
        true: dict(zip(TOLD, line, strict=True))
        for true, line in zip(TRUE, counts.astype(int).tolist(), strict=True)
    }
    left, left_again = confusion.unattributed(counts), confusion.unattributed(again)
    found["unattributed"] = {name: share_of(*pair) for name, pair in left.items()}
    with np.errstate(invalid="ignore"):
        shares = {name: some / all_ for name, (some, all_) in left_again.items()}
    intervals["unattributed"] = {name: spread(one) for name, one in shares.items()}
    return found, intervals


def _by_detail(rows: pl.DataFrame, label: str) -> dict[str, dict[str, Any]]:
    counted = (
        rows.group_by(label, "detail")
        .agg(right=(pl.col("cause") == pl.col(label)).sum(), n=pl.len())
        .sort(label, "detail")
    )
    out: dict[str, dict[str, Any]] = {}
    for cause, detail, right, n in counted.iter_rows():
        out.setdefault(cause, {})[detail] = share_of(right, n)
    return out


def _by_cause(values: Sequence[Any]) -> Mapping[str, Any]:
    return dict(zip(CAUSES, values, strict=False))


def _places(names: pl.Series, of: Sequence[str]) -> np.ndarray:
    places = {name: place for place, name in enumerate(of)}
    return names.replace_strict(places, return_dtype=pl.Int64).to_numpy()


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
