"""Vectors of examples on disk: ``projections/representations.parquet``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from ilp_jax import files, parquet

PROJECTIONS = "projections"
REPRESENTATIONS = "representations.parquet"
VECTORS_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.int64(), False, {"meaning": "the example", "unit": ""}),
        pa.field(
            "vector",
            pa.list_(pa.field("element", pa.float32(), False)),
            False,
            {"meaning": "the base model's representation of the prompt", "unit": "L2 norm 1"},
        ),
    ]
)
_GROUP_ROWS = 1 << 12  # 9 MB at a width of 576, 67 MB at 4,096


def write_representations(
    run_folder: epath.PathLike,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    metadata: Mapping[str, str],
) -> None:
    """Writes the vectors of all examples, atomically, holding a few thousand at a time.

    Args:
      run_folder: the run's folder.
      batches: pairs of ids, int64 [B], and vectors, float32 [B, D].
      metadata: what the vectors are.

    Raises:
      RunFailure: the disk is full; no temporary file is left.
    """

    def fill(written: pq.ParquetWriter) -> None:
        for ids, vectors in _grouped(batches):
            offsets = np.arange(len(ids) + 1, dtype=np.int32) * vectors.shape[1]
            lists = pa.ListArray.from_arrays(offsets, vectors.ravel(), written.schema.field(1).type)
            written.write_batch(pa.record_batch([pa.array(ids), lists], schema=written.schema))

    path = files.as_path(run_folder) / PROJECTIONS / REPRESENTATIONS
    parquet.write_filled(path, VECTORS_SCHEMA, fill, metadata, dictionary=False)


def read_representations(run_folder: epath.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Reads the vectors of all examples; the dot product of two is their cosine similarity.

    Args:
      run_folder: the run's folder.

    Returns:
      ids: int64 [n], in no particular order.
      vectors: float32 [n, D], of L2 norm 1.

    Raises:
      UserError: the run has none (``config.probe.representations`` was false).
    """
    table = parquet.read_arrow(files.as_path(run_folder) / PROJECTIONS / REPRESENTATIONS)
    ids = table["example_id"].to_numpy()
    values = [chunk.flatten().to_numpy() for chunk in table["vector"].chunks]
    flat = np.concatenate(values or [np.zeros(0, np.float32)])
    return ids, flat.reshape(len(ids), -1) if len(ids) else flat.reshape(0, 0)


def _grouped(
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Small batches put together into row groups."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def together() -> tuple[np.ndarray, np.ndarray]:
        ids, vectors = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        waiting.clear()
        return ids.astype(np.int64), vectors.astype(np.float32)

    for batch in batches:
        waiting.append(batch)
        if sum(len(ids) for ids, _ in waiting) >= _GROUP_ROWS:
            yield together()
    if waiting:
        yield together()
