import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax import atomic, files, parquet
from ilp_jax.errors import RunFailure, UserError


def frame(n=3):
    return pl.DataFrame(
        {"id": range(n), "text": ["a", None, "ü"][:n], "list": [[1], [], [2, 3]][:n]}
    )


def test_parquet_round_trip_with_metadata(tmp_path):
    path = tmp_path / "deep" / "table.parquet"
    parquet.write(path, frame(), {"who": "me"})
    assert parquet.read(path).equals(frame())
    assert parquet.read_metadata(path) == {
        "schema_version": "1",
        "checksum": "crc32",
        "who": "me",
    }
    assert parquet.read(path, ["id"]).columns == ["id"]
    assert os.listdir(path.parent) == ["table.parquet"]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_parquet_is_readable_without_our_code(tmp_path):
    parquet.write(tmp_path / "t.parquet", frame())
    assert pl.read_parquet(tmp_path / "t.parquet").equals(frame())
    assert pq.read_table(tmp_path / "t.parquet")["text"].to_pylist() == ["a", None, "ü"]


def test_schema_is_enforced(tmp_path):
    schema = pa.schema([pa.field("b", pa.int32(), nullable=False), pa.field("a", pa.float32())])
    parquet.write(tmp_path / "t.parquet", pl.DataFrame({"a": [1.5], "b": [2]}), schema=schema)
    assert parquet.read_arrow(tmp_path / "t.parquet").schema.equals(schema)
    for bad in ({"a": [1.0]}, {"a": [1.0], "b": [1], "c": [1]}, {"a": [1.0], "b": [None]}):
        with pytest.raises(ValueError):
            parquet.write(tmp_path / "t.parquet", pl.DataFrame(bad), schema=schema)
    assert len(parquet.read(tmp_path / "t.parquet")) == 1


def test_newer_missing_and_damaged_files(tmp_path):
    newer = tmp_path / "newer.parquet"
    parquet.write(newer, frame(), {parquet.VERSION_KEY: str(parquet.SCHEMA_VERSION + 1)})
    with pytest.raises(UserError, match="newer"):
        parquet.read(newer)
    with pytest.raises(UserError, match="no such file"):
        parquet.read(tmp_path / "none.parquet")
    parquet.write(tmp_path / "t.parquet", frame())
    whole = (tmp_path / "t.parquet").read_bytes()
    for content in (b"", whole[: len(whole) // 2], bytes(len(whole))):
        (tmp_path / "t.parquet").write_bytes(content)
        with pytest.raises(UserError, match="not a readable Parquet"):
            parquet.read(tmp_path / "t.parquet")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        files.read_json(tmp_path / "x.json")


def test_json_is_strict_and_knows_numpy(tmp_path):
    value = {
        "nan": float("nan"),
        "array": np.arange(2),
        "scalar": np.float32(0.5),
        3: (np.bool_(True), -np.inf),
        "path": tmp_path,
    }
    files.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "nan": None,
        "array": [0, 1],
        "scalar": 0.5,
        "3": [True, None],
        "path": str(tmp_path),
    }
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "x.json", {"bad": object()})
    assert (tmp_path / "x.json").read_text() == text


@pytest.mark.parametrize("write", ["text", "parquet"])
def test_full_disk_is_a_run_failure_that_leaves_nothing(tmp_path, monkeypatch, write):
    """A device that is always full gives the kernel's own error."""
    path = tmp_path / "t.bin"
    path.write_text("old")
    (tmp_path / ".full.tmp").symlink_to("/dev/full")
    monkeypatch.setattr(atomic, "_temporary_name", lambda name: ".full.tmp")
    with pytest.raises(RunFailure, match="the disk is full -- free at least .* MB") as caught:
        if write == "text":
            files.write_text(path, "new" * 100_000)
        else:
            parquet.write(path, pl.DataFrame({"x": np.random.default_rng(0).random(50_000)}))
    assert caught.value.exit_code == 1
    assert os.listdir(tmp_path) == ["t.bin"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_failure_to_sync(tmp_path, monkeypatch, code):
    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError if code == errno.EIO else RunFailure):
        files.write_text(tmp_path / "x", "text")
    assert os.listdir(tmp_path) == []


def test_temporaries_are_ignored_and_removed(tmp_path):
    parquet.write(tmp_path / "a.parquet", frame())
    for host in (0, 1):
        name = atomic._temporary_name(f"b.host-000{host}.parquet")
        assert files.is_temporary(name)
        (tmp_path / name).write_bytes(b"half")
    assert [p.name for p in files.list_files(tmp_path)] == ["a.parquet"]
    assert files.remove_temporaries(tmp_path, "host-0001") == 1
    assert files.remove_temporaries(tmp_path) == 1
    assert files.remove_temporaries(tmp_path / "none") == 0
    assert files.list_files(tmp_path / "none") == []
    assert os.listdir(tmp_path) == ["a.parquet"]


@pytest.mark.parametrize("moment", ["os.fsync", "os.replace"])
def test_killed_write_leaves_the_old_file(tmp_path, moment):
    files.write_text(tmp_path / "x.txt", "old")
    code = f"""
import os, signal
from ilp_jax import atomic, files, parquet
{moment} = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
files.write_text({str(tmp_path / "x.txt")!r}, "new")
"""
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "x.txt").read_text() == "old"
    assert files.remove_temporaries(tmp_path) == 1
    assert os.listdir(tmp_path) == ["x.txt"]


def test_local_paths_are_told_from_buckets():
    assert not files.is_local("gs://bucket/run")
    assert files.is_local("/run") and files.is_local("run")


@given(
    values=st.lists(st.integers(0, 9), max_size=20),
    least=st.integers(0, 10),
    group=st.integers(1, 7),
)
def test_rows_that_are_wanted(tmp_path_factory, values, least, group):
    path = tmp_path_factory.mktemp("where") / "t.parquet"
    table = pl.DataFrame({"a": values, "b": [str(v) for v in values]}, {"a": pl.Int64, "b": str})
    parquet.write(path, table, row_group_rows=group)
    wanted = pl.col("a") >= least
    assert parquet.read_where(path, wanted).equals(table.filter(wanted))
    assert parquet.read_where(path, wanted, ["a"]).equals(table.filter(wanted).select("a"))
