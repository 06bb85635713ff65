"""What was planted in each row of a world: ``truth.parquet``."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import files
from ilp_jax.errors import UserError

FILE = "truth.parquet"


def write_truth(workdir: epath.PathLike, table: pa.Table) -> None:
    """Writes it, atomically.

    Args:
      workdir: the run's folder.
      table: the columns of ``TRUTH_SCHEMA``.

    Raises:
      RunFailure: the disk is full.
    """
    files.write_parquet(epath.Path(workdir) / FILE, table, {"file": "truth"})


def read_truth(workdir: epath.PathLike) -> pl.DataFrame:
    """Reads it. Only the scoring of a diagnosis does, never the diagnosis itself.

    Args:
      workdir: the run's folder.

    Raises:
      UserError: the run is of no planted world, or the file is damaged.
    """
    path = epath.Path(workdir) / FILE
    if not path.exists():
        raise UserError(path, "does not exist", "only a study with planted causes has a truth")
    return files.read_parquet(path)
