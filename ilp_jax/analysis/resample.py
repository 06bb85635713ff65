"""Bootstrap over worlds, then over contradiction groups: how often each group is drawn.

Rows of one group stand or fall together (of two rows that contradict each other exactly one
is learned), and runs of one world share its facts, whatever the model's family; so neither
rows nor runs are independent, and intervals over them would be too short.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis.planted import Planted
from ilp_jax.analysis.shares import CONFIDENCE

RESAMPLES = 1000
"""Resamples behind an interval."""
SEED = 0


def with_units(runs: Sequence[Planted]) -> tuple[list[Planted], np.ndarray]:
    """Numbers the groups of all runs; a group has one number in all runs of its world.

    Args:
      runs: the runs.

    Returns:
      The runs, with a column ``unit`` in ``verdicts`` and ``told``; and int64 [n_units], each
      unit's world, counted from 0. A run of an unknown world has a world of its own.
    """
    names = [
        ("world", run.world) if run.world is not None else ("run", str(run.workdir)) for run in runs
    ]
    worlds = {name: place for place, name in enumerate(dict.fromkeys(names))}
    places = [worlds[name] for name in names]
    groups = pl.concat(
        [
            run.verdicts.select("group_id").unique().with_columns(world=pl.lit(place, pl.Int64))
            for run, place in zip(runs, places, strict=True)
        ]
    )
    groups = groups.unique().sort("world", "group_id").with_row_index("unit")
    numbered = []
    for run, place in zip(runs, places, strict=True):
        own = groups.filter(pl.col("world") == place).select("group_id", "unit")
        numbered.append(_joined(run, own))
    return numbered, groups["world"].to_numpy()


def _joined(run: Planted, units: pl.DataFrame) -> Planted:
    joined = {
        name: getattr(run, name).join(units, on="group_id", how="left", maintain_order="left")
        for name in ("verdicts", "told")
    }
    return dataclasses.replace(run, **joined)


def draw(world_U: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each unit is in each resample.

    As many worlds as there are are drawn with replacement, and for each world drawn as many
    of its units as it has, with replacement (Davison and Hinkley 1997, section 3.8). With one
    world this is the plain bootstrap over its units.

    Args:
      world_U: int64 [n_units], each unit's world, from 0 on without gaps.
      resamples: B.
      seed: of the draws.

    Returns:
      float32 [B, n_units], whole numbers.
    """
    rng = np.random.default_rng(seed)
    n_worlds = int(world_U.max()) + 1
    times = rng.multinomial(n_worlds, np.full(n_worlds, 1 / n_worlds), size=resamples)
    weights = np.zeros((resamples, len(world_U)), np.float32)
    for world in range(n_worlds):
        (own,) = np.nonzero(world_U == world)
        sample = np.repeat(np.arange(resamples), times[:, world] * len(own))
        drawn = rng.integers(len(own), size=len(sample))
        counts = np.bincount(sample * len(own) + drawn, minlength=resamples * len(own))
        weights[:, own] = counts.reshape(resamples, len(own))
    return weights


def spread(resampled: np.ndarray) -> list[Any]:
    """The central 95% of a statistic over the resamples in which it is defined (Efron 1979).

    Args:
      resampled: float [B] or [B, k], nan where not defined.

    Returns:
      An interval, or k of them; None where the statistic is never defined.
    """
    values = np.asarray(resampled, np.float64)
    ordered = np.sort(values.reshape(len(values), -1), axis=0)  # nan comes last
    known = (~np.isnan(ordered)).sum(axis=0)
    tail, columns, bounds = (1 - CONFIDENCE) / 2, np.arange(ordered.shape[1]), []
    for quantile in (tail, 1 - tail):
        place = quantile * np.maximum(known - 1, 0)
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        low, high = ordered[below, columns], ordered[above, columns]
        bounds.append(low + (place - below) * (high - low))
    found = [
        [low, high] if n else None
        for low, high, n in zip(*(bound.tolist() for bound in bounds), known, strict=True)
    ]
    return found if values.ndim > 1 else found[0]
