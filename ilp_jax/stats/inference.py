"""Keeps ``inference/{point}.parquet``: the model's answers at a point of the run.

A point may gather rows from several moments (``epoch_2`` and ``converged`` get each
stage's rows when the stage comes there), so a write replaces only the rows of its own
step and later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.stats import shards
from ilp_jax.stats.reader import INFERENCE, inference_files
from ilp_jax.stats.schema import INFERENCE_SCHEMA

BASE = "base"
"""The one point that is measured before training, hence survives a restart of it."""


def put_inference(
    run_folder: epath.PathLike,
    point: str,
    table: pa.Table | pl.DataFrame,
    step: int,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Adds the answers of one moment to a point's file, atomically.

    Rows of the same step or later that are there from a killed attempt are replaced,
    so the call may be repeated.

    Args:
      run_folder: the run's folder.
      point: the point's name.
      table: the columns of `ilp_jax.stats.schema.INFERENCE_SCHEMA`, in any order; every
        row has that step.
      step: updates made before the questions.
      metadata: further pairs for the file's metadata.

    Raises:
      RunFailure: the disk is full; the old file is whole.
      ValueError: a column is missing or unknown, or a row has another step.
    """
    if isinstance(table, pl.DataFrame):
        table = table.to_arrow(compat_level=pl.CompatLevel.oldest())
    rows = parquet.conform(table, INFERENCE_SCHEMA)
    if rows.num_rows and set(rows["step"].unique().to_pylist()) != {step}:
        raise ValueError(f"column step is not {step}")
    path = _path(run_folder, point)
    if path.exists():
        rows = pa.concat_tables([_until(path, step - 1), rows])
    parquet.write(path, rows, metadata, schema=INFERENCE_SCHEMA)


def discard_inference_after(
    run_folder: epath.PathLike, step: int, points: Collection[str] | None = None
) -> None:
    """Deletes answers of later steps, before they are asked for again.

    Args:
      run_folder: the run's folder.
      step: the step restored; its own rows stay. -1 deletes all.
      points: the points to look at; all but ``base`` by default.
    """
    for path in inference_files(files.as_path(run_folder) / INFERENCE):
        point = path.name.removesuffix(shards.SUFFIX)
        if point == BASE if points is None else point not in points:
            continue
        n_rows = parquet.read_arrow(path).num_rows
        kept = _until(path, step)
        if not kept.num_rows:
            files.remove(path)
        elif kept.num_rows < n_rows:
            stored = parquet.read_metadata(path)
            parquet.write(path, kept, stored, schema=INFERENCE_SCHEMA)


def _path(run_folder: epath.PathLike, point: str) -> epath.Path:
    return files.as_path(run_folder) / INFERENCE / f"{point}{shards.SUFFIX}"


def _until(path: epath.Path, step: int) -> pa.Table:
    table = parquet.conform(parquet.read_arrow(path), INFERENCE_SCHEMA)
    return table.filter(pa.compute.less_equal(table["step"], step))
