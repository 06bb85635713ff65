"""Tables of a run: Parquet files with a version, on a local disk or in a bucket.

Each is written whole or not at all (see `atomic`), with checksums of its pages, which any reader
of Parquet may compare, and one of the whole file (see `seal`), which is compared here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath

from ilp_jax import seal
from ilp_jax.atomic import as_path, is_local, write_with
from ilp_jax.errors import UserError

SCHEMA_VERSION = 1
"""Version of every table of a run; it grows when a column changes its meaning."""

VERSION_KEY = "schema_version"
SEAL_KEY = "checksum"
OWN_KEYS = (VERSION_KEY, SEAL_KEY)
"""Pairs of every table's metadata: the schema's version, and that the file has a checksum."""

# What Arrow raises on bytes that are not what they should be (UnicodeDecodeError is a ValueError).
_DAMAGE = (pa.ArrowException, OSError, ValueError)
_HOW = {"compression": "zstd", "write_page_checksum": True}
_OWN = {VERSION_KEY.encode(): str(SCHEMA_VERSION).encode(), SEAL_KEY.encode(): b"crc32"}


def write(
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
    table = table.replace_schema_metadata(_stored(table.schema, metadata).metadata)

    def fill(file: BinaryIO) -> None:
        pq.write_table(
            table, file, use_dictionary=dictionary, row_group_size=row_group_rows, **_HOW
        )

    _write_sealed(path, fill, table.nbytes)


def write_parts(
    path: epath.PathLike,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    metadata: Mapping[str, str] | None = None,
    dictionary: bool | list[str] = True,
    row_group_rows: int = 1 << 17,
) -> int:
    """As `write`, for rows that come in parts and are never all in memory.

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
    n_rows = 0

    def fill(written: pq.ParquetWriter) -> None:
        nonlocal n_rows
        for table in tables:
            n_rows += table.num_rows
            table = conform(table, schema).replace_schema_metadata(written.schema.metadata)
            written.write_table(table, row_group_size=row_group_rows)

    write_filled(path, schema, fill, metadata, dictionary)
    return n_rows


def write_filled(
    path: epath.PathLike,
    schema: pa.Schema,
    fill: Callable[[pq.ParquetWriter], Any],
    metadata: Mapping[str, str] | None = None,
    dictionary: bool | list[str] = True,
) -> None:
    """As `write`, for whatever writes rows to the `pq.ParquetWriter` that it is given.

    Args:
      path: the file; its folder is made if need be.
      schema: the columns.
      fill: writes the rows.
      metadata: further key-value pairs of the file's metadata.
      dictionary: the columns encoded with a dictionary (True: all).

    Raises:
      RunFailure: the disk is full; no temporary file is left.
    """

    def put(file: BinaryIO) -> None:
        stored = _stored(schema, metadata)
        with pq.ParquetWriter(file, stored, use_dictionary=dictionary, **_HOW) as written:
            fill(written)

    _write_sealed(path, put)


def _write_sealed(path: epath.PathLike, put: Callable[[BinaryIO], Any], n_bytes: int = 0) -> None:
    def sealed(file: BinaryIO) -> None:
        put(file)
        seal.seal(file)

    write_with(path, sealed, n_bytes)


def _stored(schema: pa.Schema, metadata: Mapping[str, str] | None) -> pa.Schema:
    """The schema with every table's pairs, its own, and these."""
    more = {name.encode(): str(value).encode() for name, value in (metadata or {}).items()}
    return schema.with_metadata({**(schema.metadata or {}), **_OWN, **more})


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


def read(path: epath.PathLike, columns: list[str] | None = None) -> pl.DataFrame:
    """Reads a Parquet file of a run.

    Args:
      path: the file.
      columns: only these columns.

    Returns:
      Its rows.

    Raises:
      UserError: the file is missing, is damaged, or was written by a newer version.
    """
    with _opened(path, columns) as file:
        table = file.read(columns=columns)
    return pl.from_arrow(table)


def read_arrow(path: epath.PathLike) -> pa.Table:
    """As `read`, as an arrow table with the file's metadata on its schema."""
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
      UserError: as `read`.
    """
    names = None if columns is None else list(columns)
    with _opened(path, names) as file:
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
      UserError: as `read`.
    """
    with _opened(path, columns) as file:
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


def check(path: epath.PathLike) -> None:
    """Makes sure that a Parquet file is whole, without reading its rows; raises as `read`."""
    with _opened(path):
        pass


def count_rows(path: epath.PathLike) -> int:
    """Rows of a Parquet file, from its footer; raises as `read`."""
    with _opened(path) as file:
        return file.metadata.num_rows


def read_metadata(path: epath.PathLike) -> dict[str, str]:
    """Key-value metadata of a Parquet file, without its rows.

    Args:
      path: the file.

    Returns:
      The pairs that `write` stored, the schema version among them.

    Raises:
      UserError: as `read`.
    """
    with _opened(path) as file:
        return _pairs(file)


@contextlib.contextmanager
def _opened(path: epath.PathLike, columns: Sequence[str] | None = None) -> Iterator[pq.ParquetFile]:
    """A file found to be whole, and to have these columns."""
    path = as_path(path)
    try:
        # Buckets check their objects themselves; there the pages' checksums have to do.
        sealed = seal.check(os.fspath(path)) if is_local(path) else None
        with (
            _source(path) as source,
            pq.ParquetFile(source, page_checksum_verification=True) as file,
        ):
            pairs = _pairs(file)
            if sealed is False and SEAL_KEY in pairs:
                raise ValueError("it has lost its checksum")
            version = int(pairs.get(VERSION_KEY, SCHEMA_VERSION))
            if version > SCHEMA_VERSION:
                raise UserError(
                    path,
                    f"has schema version {version}; this ilp_jax knows {SCHEMA_VERSION}",
                    "use the newer ilp_jax that wrote it",
                )
            if missing := [name for name in columns or () if name not in file.schema_arrow.names]:
                raise UserError(
                    path, f"has no column {missing[0]}", "run the phase that writes it again"
                )
            yield file
    except FileNotFoundError:
        raise UserError(
            path, "there is no such file", "check the path, or run the phase that writes it"
        ) from None
    except _DAMAGE as error:
        told = (
            "is a folder, not a file"
            if path.is_dir()
            else f"is not a readable Parquet file ({error})"
        )
        raise UserError(
            path, told, "restore it from a copy, or run the phase that writes it again"
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
