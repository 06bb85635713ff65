"""Rows of finished planted worlds to fit on: unlearned at the end, with what was planted."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from etils import epath

from ilp_jax import files, run_record
from ilp_jax.analysis import signals
from ilp_jax.analysis.fitted.inputs import inputs
from ilp_jax.errors import UserError
from ilp_jax.stats.reader import read_diagnosis
from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED
from ilp_jax.stats.truth import read_truth

TUNING = range(10)
"""Worlds that thresholds and models may be fitted on. Others are for testing alone."""
NO_CAUSE = ("fault", "control")
"""Planted groups whose unlearned rows have none of the five causes."""


def read_worlds(
    workdirs: Sequence[epath.PathLike], detector: str = "sampled", point: str = "final"
) -> pl.DataFrame:
    """Unlearned rows of several finished worlds.

    Args:
      workdirs: their folders.
      detector: by which rows are unlearned.
      point: when.

    Returns:
      A row an unlearned row of the five causes, ``fault`` or ``control``: the inputs
      (`inputs.inputs`), ``world``, ``family``, ``seed``, ``planted``, and ``label``, the class
      to fit: the cause, or ``unattributed`` for the other two. Sorted by world, family, seed
      and example.

    Raises:
      UserError: a folder is no finished run of a world, its world is not one of `TUNING`, it
        was given twice, or it has no verdict of that detector at that point.
    """
    tables, seen = [], {}
    for workdir in workdirs:
        rows = _read_world(files.as_path(workdir), detector, point)
        key = rows.row(0, named=True)
        key = (key["world"], key["family"], key["seed"])
        if key in seen:
            world = f"world {key[0]} of family {key[1]}, seed {key[2]}"
            raise UserError(workdir, f"is {world}, as {seen[key]} is", "give each once")
        seen[key] = workdir
        tables.append(rows)
    return pl.concat(tables).sort("world", "family", "seed", "example_id")


def _read_world(workdir: epath.Path, detector: str, point: str) -> pl.DataFrame:
    config = run_record.read(workdir)["config"]
    world = config.get("world") or {}
    if not world.get("family"):
        raise UserError(workdir, "is not the run of a planted world", "give such runs alone")
    if world["seed"] not in TUNING:
        raise UserError(
            workdir,
            f"is world {world['seed']}: it is for testing, not for fitting",
            f"fit on worlds {TUNING.start} to {TUNING.stop - 1}",
        )
    lost = read_diagnosis(workdir).filter(
        pl.col("method") == "none",
        pl.col("detector") == detector,
        pl.col("point") == point,
        pl.col("unlearned"),
    )
    known = signals.read_signals(workdir).filter(pl.col("point") == point)
    truth = read_truth(workdir).select("example_id", "planted")
    planted = pl.col("planted")
    rows = (
        inputs(known)
        .join(lost.select("example_id"), on="example_id")
        .join(truth, on="example_id")
        .filter(planted.is_in([*CAUSES, *NO_CAUSE]))
        .with_columns(
            pl.lit(world["seed"], pl.Int64).alias("world"),
            pl.lit(world["family"]).alias("family"),
            pl.lit(config["seed"], pl.Int64).alias("seed"),
            pl.when(planted.is_in(NO_CAUSE))
            .then(pl.lit(UNATTRIBUTED))
            .otherwise(planted)
            .alias("label"),
        )
    )
    if rows.is_empty():
        raise UserError(
            workdir,
            f"has no planted row that is unlearned by {detector} at {point}",
            "name a detector and point that the run has",
        )
    return rows
