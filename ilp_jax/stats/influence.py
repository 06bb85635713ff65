"""Keeps ``influence.parquet``: which later examples raised the loss of those that were lost."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import files, parquet

FILE = "influence.parquet"
METHODS = ("raw", "preconditioned")
"""``raw``: as if every update were one of plain gradient descent; ``preconditioned``: the
gradient divided by the root of AdamW's second moment, as the update divided it."""


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "", null: bool = False):
    return pa.field(name, kind, nullable=null, metadata={"meaning": meaning, "unit": unit})


INFLUENCE_SCHEMA = pa.schema(
    [
        _field(
            "example_id",
            pa.int64(),
            "the example that was lost; null: all of those followed, their scores added up",
            null=True,
        ),
        _field("eraser_id", pa.int64(), "the later example"),
        _field("step", pa.int64(), "the update with the largest part in the score", "updates"),
        _field("method", pa.string(), "raw or preconditioned"),
        _field(
            "score",
            pa.float64(),
            "rise of the lost example's mean loss, to first order, through the eraser's part in "
            "the updates looked at after the lost example's last stage",
            "nats a token",
        ),
    ]
)


def write_influence(
    run_folder: epath.PathLike, rows: pl.DataFrame, settings: Mapping[str, str]
) -> None:
    """Writes ``influence.parquet``, atomically.

    Args:
      run_folder: the run's folder.
      rows: the columns of `INFLUENCE_SCHEMA`.
      settings: what they were computed with: the metadata.

    Raises:
      RunFailure: the disk is full.
    """
    parquet.write(files.as_path(run_folder) / FILE, rows, settings, schema=INFLUENCE_SCHEMA)


def read_influence(run_folder: epath.PathLike) -> pl.DataFrame:
    """Reads ``influence.parquet``: the strongest erasers of each lost example, first to last.

    Args:
      run_folder: the run's folder.

    Returns:
      One row a lost example (null: all together), eraser and method.

    Raises:
      UserError: it was not computed there, or is damaged.
    """
    return parquet.read(files.as_path(run_folder) / FILE)


def computed_with(run_folder: epath.PathLike) -> dict[str, str]:
    """The settings of what is there.

    Args:
      run_folder: the run's folder.

    Returns:
      The file's metadata; empty where there is none.

    Raises:
      UserError: the file is damaged.
    """
    path = files.as_path(run_folder) / FILE
    return parquet.read_metadata(path) if path.exists() else {}
