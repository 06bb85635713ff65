"""Sorts the rows of many files by key in bounded memory: the work behind `writer.compact`.

A distribution sort: rows go into buckets by ranges of ``example_id``, each small enough to be
sorted in memory, and the sorted buckets follow each other. Buckets are files without a name
beside the shards (on this machine's disk where those lie in a bucket), so nothing is left of
them when the process is killed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.errors import RunFailure
from ilp_jax.stats.schema import KEY, STATS_SCHEMA

ROWS_AT_ONCE = 1 << 20
"""Rows sorted at once: about 0.5 GB with their copies."""
_MOST_BUCKETS = 256  # Files open at once; from 2**28 rows a host on, buckets grow instead.
_SAMPLED = 4096  # Ids of a row group that the ranges are chosen from.


def sorted_by_key(
    paths: Sequence[epath.Path], folder: epath.Path, rows_at_once: int = ROWS_AT_ONCE
) -> Iterator[pa.Table]:
    """The rows of some statistics files, sorted by key, in parts.

    Args:
      paths: the files.
      folder: where they lie; the buckets take about as much room there as they do.
      rows_at_once: rows that may be in memory, about; a row group is read whole.

    Yields:
      Rows with the columns of ``STATS_SCHEMA``; no key of a part is below one before it, and
      no example is in two parts.

    Raises:
      RunFailure: a key occurs twice, or the disk is full.
    """
    n_rows = sum(parquet.count_rows(path) for path in paths)
    n_buckets = min(-(-n_rows // rows_at_once), _MOST_BUCKETS)
    if n_buckets <= 1:
        yield _sorted(pa.concat_tables([STATS_SCHEMA.empty_table(), *_rows(paths)]), folder)
        return
    with contextlib.ExitStack() as stack:
        for bucket in _distributed(paths, folder, n_buckets, stack):
            bucket.seek(0)
            rows = pq.read_table(bucket, memory_map=False, page_checksum_verification=True)
            yield _sorted(rows, folder)
            bucket.close()


def _distributed(
    paths: Sequence[epath.Path], folder: epath.Path, n_buckets: int, stack: contextlib.ExitStack
) -> list:
    """Files of the rows of each range of ids, in order of the ranges."""
    bounds = _bounds(paths, n_buckets)
    place = os.fspath(folder) if files.is_local(folder) else None
    buckets = [
        stack.enter_context(tempfile.TemporaryFile(dir=place)) for _ in range(len(bounds) + 1)
    ]
    with files.disk_full_as_failure(folder), contextlib.ExitStack() as writing:
        # Read once more and thrown away: speed matters, size hardly.
        writers = [
            writing.enter_context(
                pq.ParquetWriter(
                    bucket,
                    STATS_SCHEMA,
                    compression="lz4",
                    use_dictionary=["kind"],
                    write_page_checksum=True,
                )
            )
            for bucket in buckets
        ]
        for rows in _rows(paths):
            number = np.searchsorted(bounds, rows["example_id"].to_numpy(), side="right")
            order = np.argsort(number, kind="stable")
            ends = np.searchsorted(number[order], np.arange(len(writers) + 1))
            rows = rows.take(order)
            for writer, start, stop in zip(writers, ends[:-1], ends[1:], strict=True):
                if stop > start:
                    writer.write_table(rows.slice(start, stop - start))
    return buckets


def _bounds(paths: Sequence[epath.Path], n_buckets: int) -> np.ndarray:
    """Least ids of all buckets but the first, from a sample of every row group."""
    samples = []
    for path in paths:
        for rows in parquet.read_groups(path, ["example_id"]):
            ids = np.sort(rows["example_id"].to_numpy())
            every = max(len(ids) // _SAMPLED, 1)
            samples.append((ids[::every], np.full(len(ids[::every]), every)))
    ids, weights = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    order = np.argsort(ids, kind="stable")
    so_far = np.cumsum(weights[order])
    wanted = so_far[-1] * np.arange(1, n_buckets) / n_buckets
    return np.unique(ids[order][np.searchsorted(so_far, wanted)])


def _rows(paths: Sequence[epath.Path]) -> Iterator[pa.Table]:
    for path in paths:
        for rows in parquet.read_groups(path):
            yield rows.select(STATS_SCHEMA.names).cast(STATS_SCHEMA)


def _sorted(table: pa.Table, folder: epath.Path) -> pa.Table:
    rows = pl.from_arrow(table).sort(KEY)
    key = rows.select(KEY)
    # Sorted, so that equal keys stand together.
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in KEY)
    if key.select(same.any()).item():
        raise RunFailure(
            folder,
            "rows of the statistics have the same key twice",
            "delete the folder and run the command again",
        )
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())
