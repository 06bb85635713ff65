"""Keeps ``replay.parquet``: how examples respond to updates on themselves alone.

What is measured goes into small parts, ``replay/00000.parquet`` and on, each written whole;
at the end of a call they are put together and deleted. So a call that is killed keeps what
it has measured, and the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.errors import UserError

FILE, PARTS = "replay.parquet", "replay"


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"meaning": meaning, "unit": unit})


REPLAY_SCHEMA = pa.schema(
    [
        _field("example_id", pa.int64(), "the example, as in examples.parquet"),
        _field("k", pa.int32(), "updates made on it alone; 0: the final model", "updates"),
        _field("loss", pa.float64(), "mean cross-entropy of its target tokens", "nats a token"),
        _field(
            "p_gold",
            pa.float64(),
            "probability of all its target tokens, the end token included",
            "[0, 1]",
        ),
        _field(
            "correct",
            pa.bool_(),
            "exact match: every target token is the argmax; never true of a truncated example",
        ),
    ]
)


def read_replay(run_folder: epath.PathLike) -> pl.DataFrame:
    """Reads ``replay.parquet``.

    Args:
      run_folder: the run's folder.

    Returns:
      One row an example and k, sorted by both.

    Raises:
      UserError: nothing was replayed there.
    """
    return parquet.read(files.as_path(run_folder) / FILE)


def measured(run_folder: epath.PathLike, settings: Mapping[str, str]) -> pl.DataFrame:
    """What earlier calls have measured.

    Args:
      run_folder: the run's folder.
      settings: metadata that the rows must have been measured with.

    Returns:
      Rows of `REPLAY_SCHEMA`, sorted by example and k; each once.

    Raises:
      UserError: rows are there that were measured with other settings.
    """
    run_folder = files.as_path(run_folder)
    found = [pl.from_arrow(REPLAY_SCHEMA.empty_table())]
    for path in [run_folder / FILE, *files.list_files(run_folder / PARTS, ".parquet")]:
        if not path.exists():
            continue
        stored = parquet.read_metadata(path)
        differ = [
            f"{name} was {stored.get(name)}, now {value}"
            for name, value in settings.items()
            if stored.get(name) != value
        ]
        if differ:
            raise UserError(
                path,
                f"was measured with other settings ({'; '.join(differ)})",
                f"put them back, or delete {run_folder / FILE} and {run_folder / PARTS}",
            )
        found.append(parquet.read(path))
    rows = pl.concat(found)
    # A call killed while it put the parts together leaves rows in both places.
    return rows.unique(("example_id", "k"), keep="first").sort("example_id", "k")


def put_part(run_folder: epath.PathLike, rows: pl.DataFrame, settings: Mapping[str, str]) -> None:
    """Adds newly measured rows, atomically.

    Args:
      run_folder: the run's folder.
      rows: the columns of `REPLAY_SCHEMA`, every k of each example.
      settings: metadata.

    Raises:
      RunFailure: the disk is full.
    """
    folder = files.as_path(run_folder) / PARTS
    numbers = [int(path.name.split(".")[0]) for path in files.list_files(folder, ".parquet")]
    path = folder / f"{max(numbers, default=-1) + 1:05d}.parquet"
    parquet.write(path, rows, settings, schema=REPLAY_SCHEMA)


def put_together(run_folder: epath.PathLike, settings: Mapping[str, str]) -> pl.DataFrame:
    """Writes all that is measured as ``replay.parquet`` and deletes the parts.

    Args:
      run_folder: the run's folder.
      settings: metadata of all rows.

    Returns:
      The rows.

    Raises:
      RunFailure: the disk is full; the parts are kept.
    """
    run_folder = files.as_path(run_folder)
    rows = measured(run_folder, settings)
    parquet.write(run_folder / FILE, rows, settings, schema=REPLAY_SCHEMA)
    for path in files.list_files(run_folder / PARTS, ".parquet"):
        files.remove(path)
    return rows
