"""Reads the tables of a run, for notebooks and the analysis; needs no accelerator."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow as pa
from etils import epath
from polars.io.plugins import register_io_source

from ilp_jax import files, parquet
from ilp_jax.errors import UserError
from ilp_jax.stats import schema, shards

STATS = "stats"
INFERENCE = "inference"
DIAGNOSIS = "diagnosis.parquet"

_ATTEMPTS = 30
_EMPTY = schema.empty(schema.STATS_SCHEMA)


def read_stats(
    run_folder: epath.PathLike,
    columns: Sequence[str] | None = None,
    kind: str | None = None,
    between: tuple[int, int] | None = None,
) -> pl.DataFrame:
    """Statistics of a run, of every host and phase, each row once.

    May be called while the run goes on: it sees the rows that are durable.

    Args:
      run_folder: the run's folder.
      columns: only these; the key's columns are always among them.
      kind: only ``train`` or only ``probe`` rows.
      between: only examples with an id from the first to the second of these; of a finished
        run only the parts of its files are read that have them.

    Returns:
      One row an example and visit (`ilp_jax.stats.schema`), sorted by key.

    Raises:
      UserError: the folder is not a run's, or a file is damaged.
    """
    folder = check_run(run_folder) / STATS
    wanted = None
    if columns is not None:
        wanted = list(dict.fromkeys([*schema.KEY, *columns]))
    for attempt in range(_ATTEMPTS):
        time.sleep(0.01 * attempt)  # No wait at first; then time for a compaction to end.
        before, failure = files.list_files(folder), None
        try:
            parts = [_rows(path, wanted, kind, between) for path in shards.counting(folder)]
        except UserError as error:
            failure = error
        # A shard or a compaction that came in between may have hidden rows.
        if files.list_files(folder) == before:
            break
    if failure is not None:
        raise failure
    if not parts:
        parts = [pl.from_arrow(schema.empty(schema.STATS_SCHEMA))]
    rows = pl.concat(parts) if wanted is None else pl.concat([p.select(wanted) for p in parts])
    return rows.sort(schema.KEY)


def stat_groups(run_folder: epath.PathLike, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Statistics of a finished run, some columns, a row group at a time, in no order.

    Args:
      run_folder: the run's folder.
      columns: the columns.

    Yields:
      Rows.

    Raises:
      UserError: the folder is not a run's, or a file is damaged.
    """
    for path in shards.counting(check_run(run_folder) / STATS):
        for rows in parquet.read_groups(path, columns):
            yield pl.from_arrow(rows)


def _rows(
    path: epath.Path,
    columns: list[str] | None,
    kind: str | None,
    between: tuple[int, int] | None,
) -> pl.DataFrame:
    if between is None:
        rows = parquet.read(path, columns)
        return rows if kind is None else rows.filter(pl.col("kind") == kind)
    parts = [pl.from_arrow(schema.empty(schema.STATS_SCHEMA))]
    parts = [p.select(columns or p.columns) for p in parts]
    for rows in parquet.read_groups(path, columns, ("example_id", *between)):
        rows = pl.from_arrow(rows)
        parts.append(rows if kind is None else rows.filter(pl.col("kind") == kind))
    return pl.concat([p.select(parts[0].columns) for p in parts])


def scan_stats(run_folder: epath.PathLike) -> pl.LazyFrame:
    """Statistics of a finished run as a lazy frame, for tables larger than memory.

    Args:
      run_folder: the run's folder.

    Returns:
      The rows of `read_stats`, unsorted and not yet read.

    Raises:
      UserError: the folder is not a run's.
    """
    found = shards.counting(check_run(run_folder) / STATS)
    if not found:
        return pl.from_arrow(schema.empty(schema.STATS_SCHEMA)).lazy()
    if all(files.is_local(path) for path in found):
        for path in found:  # Polars compares no checksums.
            parquet.check(path)
        return pl.scan_parquet([str(path) for path in found], glob=False)
    # Polars would open buckets by itself, with credentials of its own; `files` reads them all.
    source = functools.partial(_batches, found)
    return register_io_source(source, schema=pl.from_arrow(_EMPTY).schema)


def _batches(
    paths: Sequence[epath.Path],
    columns: list[str] | None,
    predicate: pl.Expr | None,
    n_rows: int | None,
    batch_size: int | None,
) -> Iterator[pl.DataFrame]:
    """Rows of some files, row group by row group, as polars asks for them."""
    del batch_size  # Only a hint.
    for path in paths:
        for table in parquet.read_groups(path):
            rows = pl.from_arrow(table)
            rows = rows if predicate is None else rows.filter(predicate)
            rows = rows if columns is None else rows.select(columns)
            if n_rows is not None:
                rows = rows.head(n_rows)
                n_rows -= len(rows)
            yield rows
            if n_rows == 0:
                return


def check_unique(rows: pl.DataFrame, key: Sequence[str] = schema.KEY) -> None:
    """Makes sure that no row is there twice.

    Args:
      rows: a table.
      key: the columns that name a row.

    Raises:
      ValueError: a key occurs more than once; the first such keys are listed.
    """
    twice = rows.select(key).filter(rows.select(key).is_duplicated()).unique(maintain_order=True)
    if len(twice):
        raise ValueError(f"{len(twice)} keys occur more than once, first {twice.head(3).rows()}")


def read_inference(
    run_folder: epath.PathLike,
    points: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    kept: pl.Expr | None = None,
) -> pl.DataFrame:
    """Answers of the model at some points of a run.

    Args:
      run_folder: the run's folder.
      points: the points wanted (``base``, ``epoch_2``, ``stage_1``, ``converged``,
        ``final``); all that exist by default.
      columns: only these, and ``point``.
      kept: true of the rows wanted, over the columns but ``point``; all rows by default.

    Returns:
      One row a question and repetition, the column ``point`` in front. With ``kept`` no others
      are in memory together.

    Raises:
      UserError: the folder is not a run's, or a point asked for is not there.
    """
    folder = check_run(run_folder) / INFERENCE
    if points is None:
        points = [path.name.removesuffix(shards.SUFFIX) for path in inference_files(folder)]
    parts = [pl.from_arrow(schema.empty(schema.INFERENCE_SCHEMA))]
    parts = [p.select(columns or p.columns) for p in parts]
    parts = [p.with_columns(point=pl.lit(None, pl.String)) for p in parts]
    for point in points:
        wanted = None if columns is None else list(columns)
        path = folder / f"{point}{shards.SUFFIX}"
        if kept is None:
            rows = parquet.read(path, wanted)
        else:
            rows = parquet.read_where(path, kept, wanted)
        rows = rows.select(columns or rows.columns)
        parts.append(rows.with_columns(point=pl.lit(point)))
    rows = pl.concat(parts)
    return rows.select("point", pl.exclude("point"))


def inference_files(folder: epath.PathLike) -> list[epath.Path]:
    """Files of the points in an inference folder, by name."""
    return files.list_files(folder, shards.SUFFIX)


def read_examples(run_folder: epath.PathLike) -> pl.DataFrame:
    """The run's examples (``examples.parquet``), one row each."""
    rows = parquet.read(check_run(run_folder) / "examples.parquet")
    # Older versions kept their marks among the source's own columns.
    known = "marks" in rows.columns or "meta" not in rows.columns
    return rows if known else rows.with_columns(marks=pl.col("meta"))


def read_plan(run_folder: epath.PathLike) -> pl.DataFrame:
    """Which stage visits which example when (``plan.parquet``)."""
    return parquet.read(check_run(run_folder) / "plan.parquet")


def read_diagnosis(
    run_folder: epath.PathLike,
    kept: pl.Expr | None = None,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Verdicts and causes of the unlearned examples (``diagnosis.parquet``).

    Args:
      run_folder: the run's folder.
      kept: true of the rows wanted, over the columns; all rows by default.
      columns: only these columns.

    Returns:
      The rows, in the file's order. With ``kept`` no others are in memory together.
    """
    path = check_run(run_folder) / DIAGNOSIS
    if kept is None:
        return parquet.read(path, None if columns is None else list(columns))
    return parquet.read_where(path, kept, columns)


def write_diagnosis(
    run_folder: epath.PathLike,
    rows: pl.DataFrame | pa.Table,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes ``diagnosis.parquet`` whole.

    Args:
      run_folder: the run's folder.
      rows: the columns of `ilp_jax.stats.schema.DIAGNOSIS_SCHEMA`, in any order.
      metadata: further pairs for the file's metadata.
    """
    path = files.as_path(run_folder) / DIAGNOSIS
    parquet.write(path, rows, metadata, schema=schema.DIAGNOSIS_SCHEMA)


def check_run(run_folder: epath.PathLike) -> epath.Path:
    """Makes sure that a folder holds a run.

    Args:
      run_folder: the folder.

    Returns:
      Its path.

    Raises:
      UserError: it is missing, or has neither a run's record nor any of its tables.
    """
    folder = files.as_path(run_folder)
    if not folder.exists():
        raise UserError(folder, "there is no such folder", "check the path")
    marks = ("run.json", "examples.parquet", STATS, INFERENCE)
    if not any((folder / mark).exists() for mark in marks):
        raise UserError(
            folder, "is not the folder of a run (it has no run.json)", "give a run's --workdir"
        )
    return folder
