"""A run's tables, whole where they are small, else one range of examples at a time.

Statistics and answers grow with visits and questions, so of a large run they are never all in
memory: the analysis takes the examples in *parts*, ranges of ``example_id``, and keeps what it
finds of each part in files that go away with the process. A run of one part is analysed in
memory as a whole; the figures are the same either way.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.stats import reader, shards

STATS_AT_ONCE = 1 << 22
"""Rows of the statistics that a part has, about: 0.4 GB, three times that while they are sorted."""
EXAMPLES_AT_ONCE = 1 << 17
"""Examples that a part has at most."""
_LEAST, _MOST = -(2**63), 2**63 - 1


class Parts:
    """The parts of a run, and what is kept of each.

    Attributes:
      workdir: the run's folder.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.
      ranges: least and largest ``example_id`` of every part, in order; all ids lie in one.
      points: the points that have answers, by name.
    """

    def __init__(self, workdir: epath.Path, folder: Path | None, ranges: list[tuple[int, int]]):
        self.workdir, self.ranges, self._folder = workdir, ranges, folder
        self.examples, self.plan = reader.read_examples(workdir), reader.read_plan(workdir)
        found = reader.inference_files(workdir / reader.INFERENCE)
        self.points = [path.name.removesuffix(shards.SUFFIX) for path in found]
        self._kept: dict[str, pl.DataFrame] = {}
        if folder is not None:
            self._distribute()

    def __len__(self) -> int:
        return len(self.ranges)

    def of(self, frame: pl.DataFrame, part: int) -> pl.DataFrame:
        """Those rows of a table, by ``example_id``, that belong to a part."""
        if len(self) == 1:
            return frame
        return frame.filter(pl.col("example_id").is_between(*self.ranges[part]))

    def stats(
        self, part: int, columns: Sequence[str] | None = None, kind: str | None = None
    ) -> pl.DataFrame:
        """A part's statistics, sorted by key; see ``stats.reader.read_stats``."""
        between = self.ranges[part] if len(self) > 1 else None
        return reader.read_stats(self.workdir, columns, kind, between)

    def inference(self, part: int) -> pl.DataFrame:
        """A part's answers; see ``stats.reader.read_inference``."""
        if self._folder is None:
            return reader.read_inference(self.workdir)
        with pa.ipc.open_stream(self._folder / f"answers.{part}.arrows") as stream:
            return pl.from_arrow(stream.read_all())

    def put(self, name: str, part: int, frame: pl.DataFrame) -> None:
        """Keeps a table of a part under a name."""
        if self._folder is None:
            self._kept[f"{name}.{part}"] = frame
        else:
            with files.disk_full_as_failure(self._folder, frame.estimated_size()):
                frame.write_ipc(self._folder / f"{name}.{part}.arrow", compression="lz4")

    def get(self, name: str, part: int, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A table kept before, perhaps only some of its columns."""
        if self._folder is None:
            frame = self._kept[f"{name}.{part}"]
            return frame if columns is None else frame.select(columns)
        path = self._folder / f"{name}.{part}.arrow"
        rows = pl.scan_ipc(path, glob=False)
        return (rows if columns is None else rows.select(columns)).collect()

    def each(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """A table kept before, part after part."""
        return (self.get(name, part, columns) for part in range(len(self)))

    def whole(self, name: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A table kept before, of all parts together."""
        return pl.concat(self.each(name, columns))

    def forget(self, name: str) -> None:
        """Gives back what a table takes."""
        for part in range(len(self)):
            self._kept.pop(f"{name}.{part}", None)
            if self._folder is not None:
                (self._folder / f"{name}.{part}.arrow").unlink(missing_ok=True)

    def _distribute(self) -> None:
        """Writes every part's answers to a file of its own."""
        lows = np.array([low for low, _ in self.ranges[1:]])
        schema = reader.read_inference(self.workdir, []).to_arrow(
            compat_level=pl.CompatLevel.oldest()
        )
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with files.disk_full_as_failure(self._folder), contextlib.ExitStack() as stack:
            writers = []
            for part in range(len(self)):
                path = self._folder / f"answers.{part}.arrows"
                writers.append(
                    stack.enter_context(pa.ipc.new_stream(path, schema.schema, options=options))
                )
            for point in self.points:
                path = self.workdir / reader.INFERENCE / f"{point}{shards.SUFFIX}"
                for rows in parquet.read_groups(path):
                    rows = rows.add_column(0, "point", pa.array([point] * len(rows)))
                    rows = parquet.conform(rows, schema.schema)
                    number = np.searchsorted(lows, rows["example_id"].to_numpy(), side="right")
                    order = np.argsort(number, kind="stable")
                    ends = np.searchsorted(number[order], np.arange(len(writers) + 1))
                    rows = rows.take(order)
                    for writer, start, stop in zip(writers, ends[:-1], ends[1:], strict=True):
                        if stop > start:
                            writer.write_table(rows.slice(start, stop - start))


@contextlib.contextmanager
def opened(
    workdir: epath.PathLike,
    stats_at_once: int = STATS_AT_ONCE,
    examples_at_once: int = EXAMPLES_AT_ONCE,
) -> Iterator[Parts]:
    """Divides a run into parts; what is kept of them goes when the context ends.

    Args:
      workdir: the run's folder.
      stats_at_once: rows of the statistics in a part, about.
      examples_at_once: examples in a part, at most.

    Yields:
      The parts. Where there are several, they keep their tables in the folder for temporary
      files (``TMPDIR``), which needs about as much room as the run's own tables.

    Raises:
      UserError: the folder is not a run's, or a table is damaged.
    """
    workdir = reader.check_run(workdir)
    ids = parquet.read(workdir / "examples.parquet", ["example_id"])["example_id"]
    n_rows = sum(parquet.count_rows(path) for path in shards.counting(workdir / reader.STATS))
    n_parts = max(-(-len(ids) // examples_at_once), -(-n_rows // stats_at_once), 1)
    if n_parts == 1:
        yield Parts(workdir, None, [(_LEAST, _MOST)])
        return
    ordered = ids.unique().sort().to_numpy()
    lows = np.unique(ordered[len(ordered) * np.arange(1, n_parts) // n_parts]).tolist()
    ranges = list(zip([_LEAST, *lows], [low - 1 for low in lows] + [_MOST], strict=True))
    with tempfile.TemporaryDirectory(prefix="ilp_diagnose_") as folder:
        yield Parts(workdir, Path(folder), ranges)


def summed(counts: Iterable[pl.DataFrame], key: Sequence[str]) -> pl.DataFrame:
    """Adds up the parts' counts.

    Args:
      counts: tables of the same columns, those of the key and integers.
      key: the columns that name a count.

    Returns:
      One row a key.
    """
    return pl.concat(counts).group_by(key, maintain_order=True).agg(pl.exclude(key).sum())
