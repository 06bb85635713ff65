"""Vectors on disk: streamed, whole or not at all."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from ilp_jax import parquet
from ilp_jax.errors import UserError
from ilp_jax.stats import projections
from ilp_jax.stats.projections import read_representations, write_representations

FILE = "projections/representations.parquet"


def batches(sizes, width=3):
    rng = np.random.default_rng(0)
    start = 0
    for size in sizes:
        yield np.arange(start, start + size), rng.normal(size=(size, width)).astype(np.float32)
        start += size


@pytest.mark.parametrize("sizes", [[], [1], [4, 4, 2], [7] * 10])
def test_what_is_written_is_read(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(projections, "_GROUP_ROWS", 8)
    write_representations(tmp_path, batches(sizes), {"layer": "last"})
    ids, vectors = read_representations(tmp_path)
    assert ids.tolist() == list(range(sum(sizes)))
    assert vectors.dtype == np.float32
    if sizes:
        np.testing.assert_array_equal(vectors, np.concatenate([v for _, v in batches(sizes)]))
    metadata = parquet.read_metadata(tmp_path / FILE)
    assert metadata["layer"] == "last" and metadata["schema_version"] == "1"
    found = pq.ParquetFile(tmp_path / FILE)
    held = [found.metadata.row_group(i).num_rows for i in range(found.num_row_groups)]
    assert max(held, default=0) < 8 + max(sizes, default=0)
    assert str(found.schema_arrow.field("vector").type) == "list<element: float not null>"
    assert found.schema_arrow.field("vector").metadata[b"meaning"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    write_representations(tmp_path, batches([5]), {})

    def broken():
        yield from batches([3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_representations(tmp_path, broken(), {})
    assert len(read_representations(tmp_path)[0]) == 5
    assert [path.name for path in (tmp_path / "projections").iterdir()] == [
        "representations.parquet"
    ]


def test_a_run_without_them(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_representations(tmp_path)
