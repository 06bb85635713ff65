"""Files of a run, on a local disk or in a bucket: tables, JSON and what lies in a folder.

Each is written whole or not at all; see `atomic`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath

from ilp_jax.atomic import as_path as as_path
from ilp_jax.atomic import disk_full as disk_full
from ilp_jax.atomic import disk_full_as_failure as disk_full_as_failure
from ilp_jax.atomic import is_local as is_local
from ilp_jax.atomic import is_temporary as is_temporary
from ilp_jax.atomic import sync_folder
from ilp_jax.atomic import write_with as write_with
from ilp_jax.errors import UserError

SCHEMA_VERSION = 1
"""Version of every table of a run; it grows when a column changes its meaning."""

VERSION_KEY = "schema_version"


def list_files(folder: epath.PathLike, suffix: str = "") -> list[epath.Path]:
    """Finished files of a folder, by name.

    Args:
      folder: the folder; it may be missing.
      suffix: how the names end, such as ``.parquet``.

    Returns:
      Paths of the files with that suffix, sorted by name, without temporary files;
      empty where there is no such folder.
    """
    folder = as_path(folder)
    if not folder.exists():
        return []
    found = [p for p in folder.iterdir() if p.name.endswith(suffix) and not is_temporary(p.name)]
    return sorted(found, key=lambda p: p.name)


def remove_temporaries(folder: epath.PathLike, containing: str = "") -> int:
    """Deletes what killed writers left behind.

    Only for a folder (or, by ``containing``, a part of it) in which nobody writes now.

    Args:
      folder: the folder; it may be missing. Folders within it are not entered.
      containing: only temporary files whose name contains this text, for instance
        ``host-0003`` where several hosts share a folder.

    Returns:
      The number of files deleted.
    """
    folder = as_path(folder)
    if not folder.exists():
        return 0
    left = [p for p in folder.iterdir() if is_temporary(p.name) and containing in p.name]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def remove(path: epath.PathLike) -> None:
    """Deletes a file durably: after a power cut it does not come back.

    Args:
      path: the file; it may be missing.
    """
    path = as_path(path)
    path.unlink(missing_ok=True)
    if is_local(path):
        sync_folder(os.fspath(path.parent))


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes a file atomically.

    Args:
      path: the file; its folder is made if need be.
      content: the whole content.

    Raises:
      RunFailure: the disk is full; no temporary file is left.
    """
    write_with(path, lambda file: file.write(content), len(content))


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a UTF-8 text file atomically; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a JSON file atomically, indented, keys in the order given.

    Args:
      path: the file.
      value: what ``json`` can write, and numpy scalars and arrays. NaN and infinities
        become null, since JSON has no name for them.

    Raises:
      RunFailure: the disk is full.
      TypeError: a value has no JSON form.
    """
    write_text(path, to_json(value, indent=2) + "\n")


def to_json(value: Any, **options: Any) -> str:
    """``json.dumps`` that knows numpy and writes non-finite numbers as null.

    Args:
      value: the value; see `write_json`.
      **options: passed to ``json.dumps``.

    Returns:
      The text, strictly valid JSON.
    """
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False, **options)


def read_json(path: epath.PathLike) -> Any:
    """Reads a JSON file.

    Args:
      path: the file.

    Returns:
      The value.

    Raises:
      UserError: the file is missing or is not JSON.
    """
    path = as_path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(path, "there is no such file", "check the path") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(path, f"is not JSON ({error})", "restore or delete it") from error


def write_parquet(
    path: epath.PathLike,
    table: pa.Table | pl.DataFrame,
    metadata: Mapping[str, str] | None = None,
    schema: pa.Schema | None = None,
    dictionary: bool | list[str] = True,
    row_group_rows: int = 1 << 17,
) -> None:
    """Writes a Parquet file (zstd) atomically, its schema version in the metadata.

    Args:
      path: the file; its folder is made if need be.
      table: the rows.
      metadata: further key-value pairs of the file's metadata.
      schema: the columns, in order, that the table must have; it is cast to them.
      dictionary: the columns encoded with a dictionary (True: all).
      row_group_rows: rows a group.

    Raises:
      RunFailure: the disk is full; no temporary file is left.
      ValueError: the table lacks a column of the schema, or has one more.
    """
    if isinstance(table, pl.DataFrame):
        table = table.to_arrow(compat_level=pl.CompatLevel.oldest())
    if schema is not None:
        table = conform(table, schema)
    entries = {VERSION_KEY: str(SCHEMA_VERSION), **(metadata or {})}
    kept = table.schema.metadata or {}
    table = table.replace_schema_metadata({**kept, **{k: str(v) for k, v in entries.items()}})

    def put(file: BinaryIO) -> None:
        pq.write_table(
            table,
            file,
            compression="zstd",
            use_dictionary=dictionary,
            row_group_size=row_group_rows,
        )

    write_with(path, put, table.nbytes)


def write_parquet_parts(
    path: epath.PathLike,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    metadata: Mapping[str, str] | None = None,
    dictionary: bool | list[str] = True,
    row_group_rows: int = 1 << 17,
) -> int:
    """As `write_parquet`, for rows that come in parts and are never all in memory.

    Args:
      path: the file; its folder is made if need be.
      tables: the rows, in order; each part has the columns of the schema and is written as
        one or more row groups.
      schema: the columns.
      metadata: further key-value pairs of the file's metadata.
      dictionary: the columns encoded with a dictionary (True: all).
      row_group_rows: rows a group at most.

    Returns:
      The number of rows written.

    Raises:
      RunFailure: the disk is full; no temporary file is left.
      ValueError: a part lacks a column of the schema, or has one more.
    """
    entries = {VERSION_KEY: str(SCHEMA_VERSION), **(metadata or {})}
    stored = schema.with_metadata({**(schema.metadata or {}), **entries})
    n_rows = 0

    def put(file: BinaryIO) -> None:
        nonlocal n_rows
        with pq.ParquetWriter(
            file, stored, compression="zstd", use_dictionary=dictionary
        ) as written:
            for table in tables:
                n_rows += table.num_rows
                table = conform(table, schema).replace_schema_metadata(stored.metadata)
                written.write_table(table, row_group_size=row_group_rows)

    write_with(path, put)
    return n_rows


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the schema's columns, in its order and types.

    Args:
      table: the rows.
      schema: what is wanted; its metadata replaces the table's.

    Returns:
      The table, cast.

    Raises:
      ValueError: a column is missing or unknown, or null where it may not be.
    """
    missing = [n for n in schema.names if n not in table.column_names]
    unknown = [n for n in table.column_names if n not in schema.names]
    if missing or unknown:
        raise ValueError(f"missing columns {missing}, unknown columns {unknown}")
    columns = []
    for field in schema:
        column = table[field.name].cast(field.type)
        if not field.nullable and column.null_count:
            raise ValueError(f"column {field.name} has {column.null_count} nulls")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def read_parquet(path: epath.PathLike, columns: list[str] | None = None) -> pl.DataFrame:
    """Reads a Parquet file of a run.

    Args:
      path: the file.
      columns: only these columns.

    Returns:
      Its rows.

    Raises:
      UserError: the file is missing, is damaged, or was written by a newer version.
    """
    with _opened(path) as file:
        table = file.read(columns=columns)
    return pl.from_arrow(table)


def read_arrow(path: epath.PathLike) -> pa.Table:
    """As `read_parquet`, as an arrow table with the file's metadata on its schema."""
    with _opened(path) as file:
        return file.read()


def read_where(
    path: epath.PathLike, kept: pl.Expr, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Those rows of a Parquet file that are wanted; never more than a row group of others.

    Args:
      path: the file.
      kept: true of the rows wanted, over the columns.
      columns: only these columns.

    Returns:
      The rows, in the file's order.

    Raises:
      UserError: as `read_parquet`.
    """
    names = None if columns is None else list(columns)
    with _opened(path) as file:
        empty = pl.from_arrow(file.schema_arrow.empty_table())
        parts = [empty if names is None else empty.select(names)]
        for number in range(file.num_row_groups):
            rows = pl.from_arrow(file.read_row_group(number, names))
            parts.append(rows.select(parts[0].columns).filter(kept))
    return pl.concat(parts)


def read_groups(
    path: epath.PathLike,
    columns: Sequence[str] | None = None,
    between: tuple[str, int, int] | None = None,
) -> Iterator[pa.Table]:
    """A Parquet file's rows, one row group at a time.

    Args:
      path: the file.
      columns: only these columns, the one of ``between`` among them.
      between: an integer column, its least and its largest value: row groups that by their
        statistics have no such row are not read, and other rows are left out.

    Yields:
      The rows of a row group that has any, in the file's order.

    Raises:
      UserError: as `read_parquet`.
    """
    with _opened(path) as file:
        for number in range(file.num_row_groups):
            if between is not None and not _overlaps(file, number, *between):
                continue
            rows = file.read_row_group(number, None if columns is None else list(columns))
            if between is not None:
                name, low, high = between
                inside = pc.and_(pc.greater_equal(rows[name], low), pc.less_equal(rows[name], high))
                rows = rows.filter(inside)
            if rows.num_rows:
                yield rows


def count_rows(path: epath.PathLike) -> int:
    """Rows of a Parquet file, from its footer; raises as `read_parquet`."""
    with _opened(path) as file:
        return file.metadata.num_rows


def read_metadata(path: epath.PathLike) -> dict[str, str]:
    """Key-value metadata of a Parquet file, without its rows.

    Args:
      path: the file.

    Returns:
      The pairs that `write_parquet` stored, the schema version among them.

    Raises:
      UserError: as `read_parquet`.
    """
    with _opened(path) as file:
        return _pairs(file)


@contextlib.contextmanager
def _opened(path: epath.PathLike) -> Iterator[pq.ParquetFile]:
    path = as_path(path)
    try:
        with _source(path) as source, pq.ParquetFile(source) as file:
            version = int(_pairs(file).get(VERSION_KEY, SCHEMA_VERSION))
            if version > SCHEMA_VERSION:
                raise UserError(
                    path,
                    f"has schema version {version}; this ilp_jax knows {SCHEMA_VERSION}",
                    "use the newer ilp_jax that wrote it",
                )
            yield file
    except FileNotFoundError:
        raise UserError(
            path, "there is no such file", "check the path, or run the phase that writes it"
        ) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise UserError(
            path, f"is not a readable Parquet file ({error})", "copy it again from the run"
        ) from error


@contextlib.contextmanager
def _source(path: epath.Path) -> Iterator[Any]:
    """What Arrow reads a file from: of an object in a bucket only the parts that it needs."""
    if is_local(path):
        yield os.fspath(path)
        return
    with path.open("rb") as file:
        # TensorFlow's files, which epath gives where it is installed, cannot tell so.
        yield file if hasattr(file, "closed") else pa.BufferReader(file.read())


def _overlaps(file: pq.ParquetFile, group: int, name: str, low: int, high: int) -> bool:
    """Whether a row group may hold such a row; without statistics it may."""
    place = file.schema_arrow.get_field_index(name)
    known = file.metadata.row_group(group).column(place).statistics
    if known is None or not known.has_min_max:
        return True
    return known.min <= high and known.max >= low


def _pairs(file: pq.ParquetFile) -> dict[str, str]:
    stored = file.schema_arrow.metadata or {}
    return {k.decode(): v.decode() for k, v in stored.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
