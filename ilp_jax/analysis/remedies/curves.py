"""What arms bring and cost at several budgets: one curve an arm."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis.remedies.arms import counts
from ilp_jax.fields.mitigate import CURVES

_LABEL = re.compile(r"(?P<name>.*)_x(?P<budget>[0-9.e+-]+)")


def curves(
    rows: pl.DataFrame, weights_BxU: np.ndarray, world_U: np.ndarray
) -> list[dict[str, Any]]:
    """Rows recovered and lost a training, by arm and budget.

    Args:
      rows: of `load.pooled`.
      weights_BxU: of `resample.draw`.
      world_U: int64 [n_units], each unit's world.

    Returns:
      One dict an arm and budget, arms in their order and budgets upwards: ``arm``, ``budget``
      (multiple of the configured one), ``trainings``, ``steps``, ``tokens``, and a training, each
      ``value`` and ``interval``: ``recovered``, ``lost``, ``net`` (over rows that count, see
      `arms.arms`) and ``net_all`` (over all trained rows). Empty where there is one budget alone.
    """
    found = []
    for label in rows["arm"].unique().to_list():
        match = _LABEL.fullmatch(label)
        name, budget = (match["name"], float(match["budget"])) if match else (label, 1.0)
        if name in CURVES:
            own = rows.filter(pl.col("arm") == label)
            found.append({"arm": name, "budget": budget} | counts(own, weights_BxU, world_U))
    if len({one["budget"] for one in found}) < 2:
        return []
    return sorted(found, key=lambda one: (CURVES.index(one["arm"]), one["budget"]))
