"""What arms bring and cost at several budgets: one curve an arm."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from ilp_jax.analysis.remedies.arms import counts, paired
from ilp_jax.analysis.remedies.drawn import Drawn
from ilp_jax.fields.mitigate import CURVES

_LABEL = re.compile(r"(?P<name>.*)_x(?P<budget>[0-9.e+-]+)")


def curves(rows: pl.DataFrame, drawn: Drawn) -> list[dict[str, Any]]:
    """Rows recovered and lost a training, by arm and budget.

    Args:
      rows: of `load.pooled`.
      drawn: the resamples.

    Returns:
      One dict an arm and budget, arms in their order and budgets upwards: ``arm``, ``budget``
      (multiple of the configured one), ``trainings``, ``steps``, ``tokens``, and a training, each
      ``value`` and ``interval``: ``recovered``, ``lost``, ``net`` (over rows that count, see
      `arms.arms`) and ``net_all`` (over all trained rows). Only of trainings (run and seed) that
      have every arm at every budget; empty where there are none, or one budget alone.
    """
    labels = [_read(label) for label in rows["arm"].unique().to_list()]
    labels = sorted(
        ((name, budget, label) for name, budget, label in labels if name in CURVES),
        key=lambda one: (CURVES.index(one[0]), one[1]),
    )
    if len({budget for _, budget, _ in labels}) < 2:
        return []
    # Runs differ by more than budgets do: only those that have all of them are compared.
    own, trainings = paired(rows, *(label for _, _, label in labels))
    if not trainings:
        return []
    return [
        {"arm": name, "budget": budget} | counts(one, drawn)
        for (name, budget, _), one in zip(labels, own, strict=True)
    ]


def _read(label: str) -> tuple[str, float, str]:
    """An arm's name and budget, and its label."""
    match = _LABEL.fullmatch(label)
    return (match["name"], float(match["budget"]), label) if match else (label, 1.0, label)
