"""Writes the statistics of one host: in the background, each row exactly once.

The training loop hands over arrays and goes on; a thread of its own makes them into
Parquet shards. `StatsWriter.flush` returns when everything handed over is on disk; the
loop calls it before each checkpoint, so a shard never straddles one and a restore at
step s needs only to delete the shards of later steps (`discard_after`).

No host waits for another: each writes shards under its own number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.stats import merge, shards
from ilp_jax.stats.schema import STATS_SCHEMA

Batch = list[dict[str, np.ndarray]]

_REQUIRED = frozenset(f.name for f in STATS_SCHEMA if not f.nullable and f.name != "step")
# Floats of measurements hardly repeat; a dictionary of them costs time and saves nothing.
_DICTIONARY = [f.name for f in STATS_SCHEMA if not pa.types.is_floating(f.type)] + ["learning_rate"]
_WAITING = 2  # Shards handed to the thread before `append` waits: bounds the memory.


class StatsWriter:
    """Collects rows of the statistics and writes them as shards of one host.

    Args:
      folder: the run's ``stats`` folder; made if need be. Temporary files that a killed
        process left for this host are deleted.
      prefix: the phase, at the front of every shard's name (``base``, ``train``).
      host: index of this process.
      metadata: further pairs for the files' metadata, such as the config's hash.
      rows_per_shard: rows after which a shard is written without waiting for `flush`.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        prefix: str = "train",
        host: int = 0,
        metadata: Mapping[str, str] | None = None,
        rows_per_shard: int = 1 << 19,
    ):
        self.folder = files.as_path(folder)
        self._shard = shards.Shard(prefix, 0, 0, host)
        if shards.parse(self._shard.name) is None:
            raise ValueError(f"not a prefix and host: {prefix!r}, {host}")
        self._metadata = {**(metadata or {}), "prefix": prefix, "host": str(host)}
        self._rows_per_shard = rows_per_shard
        self._batches: Batch = []
        self._rows = 0
        self._pending: list[Future[None]] = []
        self._error: BaseException | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stats-writer")
        self.folder.mkdir(parents=True, exist_ok=True)
        files.remove_temporaries(self.folder, containing=f".host-{host:04d}")

    def append(self, step: int, columns: Mapping[str, Any]) -> None:
        """Takes the rows of a step; returns at once.

        Args:
          step: the update that the rows belong to (0: the base model).
          columns: values by column name, each of length n, or a scalar that holds for
            all rows; they must not be changed afterwards. A nullable column may be left
            out, and its NaN becomes null.

        Raises:
          ValueError: a column is unknown, missing, or of another length.
          RunFailure: an earlier shard met a full disk.
        """
        self._raise_error()
        rows = _checked(step, columns)
        n_rows = len(rows["step"])
        if not n_rows:
            return
        self._batches.append(rows)
        self._rows += n_rows
        if self._rows >= self._rows_per_shard:
            self._submit()
            if len(self._pending) > _WAITING:
                self._finish(self._pending[0])

    def flush(self) -> None:
        """Returns when every row appended is on disk under its final name.

        Raises:
          RunFailure: the disk is full; what was written before is whole.
        """
        self._raise_error()
        self._submit()
        for future in list(self._pending):
            self._finish(future)

    def close(self) -> None:
        """Flushes and ends the thread; harmless when called again."""
        try:
            self.flush()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> StatsWriter:
        """Returns the writer itself."""
        return self

    def __exit__(self, kind, error, traceback) -> None:
        """Closes; an error under way is not hidden by one of the writer's own."""
        try:
            self.close()
        except Exception:
            if error is None:
                raise

    def _submit(self) -> None:
        if self._batches:
            self._pending.append(self._thread.submit(self._write, self._batches))
            self._batches, self._rows = [], 0

    def _finish(self, future: Future[None]) -> None:
        self._pending.remove(future)
        future.result()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
        for future in [f for f in self._pending if f.done()]:
            self._finish(future)

    def _write(self, batches: Batch) -> None:
        # No shard after one that is missing: what is there would look whole.
        if self._error is not None:
            return
        try:
            table = to_table(batches)
            ends = pc.min_max(table["step"]).as_py()
            shard = self._shard._replace(first=ends["min"], last=ends["max"])
            shard = shards.free_name(self.folder, shard)
            _put(self.folder / shard.name, table, self._metadata)
        except BaseException as error:
            self._error = error
            raise


def to_table(batches: Batch) -> pa.Table:
    """Rows as a table of the statistics' schema.

    Args:
      batches: columns by name, as `StatsWriter.append` takes them but each of full length.

    Returns:
      The rows, in order.
    """
    n_rows = [len(batch["step"]) for batch in batches]
    columns = []
    for field in STATS_SCHEMA:
        parts = [
            _column(field, batch.get(field.name), n)
            for batch, n in zip(batches, n_rows, strict=True)
        ]
        columns.append(pa.chunked_array(parts, field.type))
    return pa.Table.from_arrays(columns, schema=STATS_SCHEMA).combine_chunks()


def discard_after(
    folder: epath.PathLike, step: int, prefix: str = "train", host: int | None = None
) -> None:
    """Deletes a phase's rows of later steps, before they are computed again.

    Called while no writer of the phase is open; with a shared folder by one process
    for all hosts, so that shards of hosts that no longer exist go too.

    Args:
      folder: the run's ``stats`` folder.
      step: the step restored; its own rows stay. -1 deletes all, as where a phase
        starts from nothing.
      prefix: the phase.
      host: only this host's shards, where every host has a folder of its own.
    """
    shards.remove_replaced(folder, prefix, host)
    for shard, path in shards.find(folder, prefix, host):
        if shard.first > step:
            files.remove(path)
        elif shard.last > step:
            _cut(shard, path, step)


def compact(
    folder: epath.PathLike,
    prefix: str = "train",
    host: int = 0,
    rows_at_once: int = merge.ROWS_AT_ONCE,
) -> epath.Path | None:
    """Merges a phase's shards of one host into one file sorted by key, in bounded memory.

    Called while no writer of that phase and host is open. Killed at any moment, every
    row still counts once (see `ilp_jax.stats.shards`), and the next call finishes.

    Args:
      folder: the run's ``stats`` folder.
      prefix: the phase.
      host: the process whose shards are merged.
      rows_at_once: rows that may be in memory, about.

    Returns:
      The merged file; None where there are no rows.

    Raises:
      RunFailure: a key occurs twice, or the disk is full; nothing is deleted.
    """
    shards.remove_replaced(folder, prefix, host)
    found = shards.find(folder, prefix, host)
    if not found:
        return None
    if len(found) == 1 and found[0][0].merged:
        return found[0][1]
    shard = shards.Shard(
        prefix, min(s.first for s, _ in found), max(s.last for s, _ in found), host, merged=True
    )
    folder = files.as_path(folder)
    target = folder / shards.free_name(folder, shard).name
    metadata = _own_metadata(parquet.read_metadata(found[0][1]))
    metadata[shards.REPLACES] = json.dumps([path.name for _, path in found])
    rows = merge.sorted_by_key([path for _, path in found], folder, rows_at_once)
    _put_parts(target, rows, metadata)
    shards.remove_replaced(folder, prefix, host)
    return target


def _put(path: epath.Path, table: pa.Table, metadata: Mapping[str, str]) -> None:
    parquet.write(path, table, metadata, schema=STATS_SCHEMA, dictionary=_DICTIONARY)


def _put_parts(path: epath.Path, rows: Iterable[pa.Table], metadata: Mapping[str, str]) -> int:
    return parquet.write_parts(path, rows, STATS_SCHEMA, metadata, _DICTIONARY)


def _cut(shard: shards.Shard, path: epath.Path, step: int) -> None:
    """Rewrites a shard that straddles the step without its later rows."""
    last = -1
    for rows in parquet.read_groups(path, ["step"]):
        steps = rows["step"].to_numpy()
        last = max(last, int(steps[steps <= step].max(initial=-1)))
    if last < 0:
        files.remove(path)
        return
    metadata = _own_metadata(parquet.read_metadata(path))
    # What it replaced is deleted by now; later shards may use those names again.
    metadata.pop(shards.REPLACES, None)
    kept = (rows.filter(pc.less_equal(rows["step"], step)) for rows in parquet.read_groups(path))
    _put_parts(path, kept, metadata)
    if files.is_local(path):  # In a bucket a rename is a copy and a deletion: not atomic.
        ends = shard._replace(last=last)
        if ends != shard:
            os.replace(path, path.parent / shards.free_name(path.parent, ends).name)


def _own_metadata(stored: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in stored.items() if k not in parquet.OWN_KEYS}


def _checked(step: int, columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    unknown = set(columns) - set(STATS_SCHEMA.names)
    missing = _REQUIRED - set(columns)
    if unknown or missing:
        raise ValueError(f"missing columns {sorted(missing)}, unknown columns {sorted(unknown)}")
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    lengths = {len(a) for a in arrays.values() if a.ndim}
    if len(lengths) != 1 or any(a.ndim > 1 for a in arrays.values()):
        shapes = {name: a.shape for name, a in arrays.items()}
        raise ValueError(f"columns of one length are wanted: {shapes}")
    n_rows = lengths.pop()
    rows = {n: a if a.ndim else np.broadcast_to(a, n_rows) for n, a in arrays.items()}
    if "step" in rows and (rows["step"] != step).any():
        raise ValueError(f"column step is not {step}")
    rows["step"] = np.broadcast_to(np.int64(step), n_rows)
    return rows


def _column(field: pa.Field, values: np.ndarray | None, n_rows: int) -> pa.Array:
    if values is None:
        return pa.nulls(n_rows, field.type)
    if pa.types.is_string(field.type):
        return pa.array(values.tolist(), field.type)
    values = values.astype(field.type.to_pandas_dtype(), casting="same_kind", copy=False)
    mask = np.isnan(values) if field.nullable and values.dtype.kind == "f" else None
    return pa.array(np.ascontiguousarray(values), field.type, mask=mask)
