"""A run's arms as they were tried, and their rows made ready for comparison."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from ilp_jax import files, run_record
from ilp_jax.stats import reader
from ilp_jax.stats.remedies import read_remedies
from ilp_jax.stats.truth import has_truth, read_truth

FILLER = "filler"


@dataclasses.dataclass(frozen=True)
class Tried:
    """The arms of one run.

    Attributes:
      workdir: the run's folder.
      config: its resolved config.
      world: what facts it shares with other runs: a world's number, or its folder.
      rows: ``remedies.parquet`` with ``planted`` (null where nothing was planted) and
        ``scored``: rows that a planted study makes no more than scenery of (fillers, such as the
        contradicting copies of others) are not.
      general: mean loss of general texts at the end, nats a token; by (arm, seed).
      documents: how many were told to treated rows (``of_rows``), and how many of them have the
        recorded answer in their text (``with_answer``); of all arms that say so.
    """

    workdir: epath.Path
    config: dict[str, Any]
    world: str
    rows: pl.DataFrame
    general: dict[tuple[str, int], float]
    documents: Counter[str] = dataclasses.field(default_factory=Counter)


def load(workdir: epath.PathLike) -> Tried:
    """Reads a run's arms.

    Args:
      workdir: the run's folder.

    Raises:
      UserError: no run, or no arms, or a file is damaged.
    """
    workdir = reader.check_run(workdir)
    rows = read_remedies(workdir)
    if has_truth(workdir):
        truth = read_truth(workdir).select("example_id", "planted")
        rows = rows.join(truth, on="example_id", how="left", maintain_order="left")
    else:
        rows = rows.with_columns(planted=pl.lit(None, pl.String))
    rows = rows.with_columns(scored=pl.col("planted").fill_null("") != FILLER)
    config = run_record.read(workdir)["config"]
    world = config.get("world") or {}
    general, documents = {}, Counter()
    for name, seed in rows.select("arm", "seed").unique().sort("arm", "seed").iter_rows():
        path = workdir / "arms" / name / str(seed) / "arm.json"
        told = files.read_json(path) if path.exists() else {}
        if told.get("general_loss") is not None:
            general[name, seed] = told["general_loss"]
        if told.get("documents_with_answer") is not None:
            documents["of_rows"] += told["documents_of_rows"]
            documents["with_answer"] += told["documents_with_answer"]
    name = f"world {world['seed']}" if world.get("family") else str(workdir)
    return Tried(workdir, config, name, rows, general, documents)


def pooled(runs: Sequence[Tried]) -> tuple[pl.DataFrame, np.ndarray]:
    """All rows of some runs, with ``run``, and ``unit`` and ``training`` that are resampled.

    Args:
      runs: the runs.

    Returns:
      The rows; and int64 [n_units], the world of each unit. A unit is a group of rows that
      contradict each other; it is the same one in all runs of its world. A training is a run and
      a seed, whatever the arm.
    """
    rows = pl.concat(
        [
            one.rows.with_columns(run=pl.lit(place, pl.Int32), world=pl.lit(one.world))
            for place, one in enumerate(runs)
        ]
    )
    units = rows.select("world", "group_id").unique().sort("world", "group_id")
    units = units.with_row_index("unit").with_columns(
        place=pl.col("world").rank("dense").cast(pl.Int64) - 1
    )
    rows = rows.join(
        units.select("world", "group_id", "unit"),
        on=("world", "group_id"),
        maintain_order="left",
    )
    trainings = rows.select("run", "seed").unique().sort("run", "seed")
    rows = rows.join(
        trainings.with_row_index("training"), on=("run", "seed"), maintain_order="left"
    )
    return rows, units["place"].to_numpy()
