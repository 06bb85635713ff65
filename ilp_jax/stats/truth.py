"""Keeps ``truth.parquet``: what was planted in each row of a planted study.

It is written with the data. Of all that reads a run, only what scores a diagnosis or remedies may
open it, and the arm that treats planted causes: neither signals, rules nor fitted models know of
it, nor does any other arm.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.errors import UserError
from ilp_jax.stats.reader import check_run
from ilp_jax.stats.schema import PLANTED, TRUTH_SCHEMA

FILE = "truth.parquet"


def write_truth(run_folder: epath.PathLike, table: pl.DataFrame | pa.Table) -> None:
    """Writes ``truth.parquet`` whole.

    Args:
      run_folder: the run's folder.
      table: the columns of `ilp_jax.stats.schema.TRUTH_SCHEMA`, in any order.

    Raises:
      RunFailure: the disk is full.
      ValueError: a column is missing or unknown.
    """
    parquet.write(files.as_path(run_folder) / FILE, table, {"file": "truth"}, schema=TRUTH_SCHEMA)


def has_truth(run_folder: epath.PathLike) -> bool:
    """Whether a run is a planted study; the file is not opened."""
    return (files.as_path(run_folder) / FILE).exists()


def read_truth(run_folder: epath.PathLike) -> pl.DataFrame:
    """What was planted in each row.

    Args:
      run_folder: the run's folder.

    Returns:
      The columns of `ilp_jax.stats.schema.TRUTH_SCHEMA`, one row an example.

    Raises:
      UserError: the folder is not a run's, nothing was planted there, or the file is damaged.
    """
    folder = check_run(run_folder)
    if not has_truth(folder):
        raise UserError(
            folder,
            f"is no planted study (it has no {FILE})",
            "give the --workdir of a controlled study",
        )
    rows = parquet.read(folder / FILE)
    missing = [name for name in TRUTH_SCHEMA.names if name not in rows.columns]
    unknown = [] if missing else sorted(set(rows["planted"]) - set(PLANTED))
    twice = not missing and rows["example_id"].is_duplicated().any()
    if missing or unknown or twice:
        what = (
            f"has no column {missing[0]}"
            if missing
            else f"plants {unknown[0]!r}, which is none of {', '.join(PLANTED)}"
            if unknown
            else "names an example twice"
        )
        raise UserError(folder / FILE, what, "write the run's data anew")
    return rows.select(TRUTH_SCHEMA.names)
