"""A run in a bucket is written, compacted, read and diagnosed as one on a disk."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from etils import epath
from etils.epath import backend

from ilp_jax import atomic, files, parquet
from ilp_jax.analysis import summary_file
from ilp_jax.analysis.diagnose import diagnose
from ilp_jax.config import default_config, to_dict
from ilp_jax.errors import UserError
from ilp_jax.stats import reader, shards
from ilp_jax.stats.inference import discard_inference_after, put_inference
from ilp_jax.stats.schema import INFERENCE_SCHEMA
from ilp_jax.stats.writer import StatsWriter, compact, discard_after
from ilp_jax.train import board
from ilp_jax.train.metrics import MetricsLog, read_metrics


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


HERE = Path(__file__).parent


@pytest.fixture
def bucket(monkeypatch):
    """The objects of ``gs://``: epath goes to this bucket where it would go to Google's."""
    objects = {}
    fake = module(HERE / "bucket.py").Bucket(objects)
    real = backend.fsspec_backend.fs
    monkeypatch.setattr(
        type(backend.fsspec_backend),
        "fs",
        lambda self, path: fake if str(path).startswith("gs://") else real(path),
    )
    return objects


def write(folder, rows):
    for host in (0, 1):
        with StatsWriter(folder / "stats", "base", host) as w:
            w.append(0, rows(range(host, 40, 2), kind="probe"))
        with StatsWriter(folder / "stats", host=host, metadata={"run": "x"}) as w:
            for step in range(1, 9):
                w.append(step, rows(range(host, 40, 2), visit=step))
                w.flush()


def test_statistics_are_those_of_a_disk(bucket, rows, tmp_path):
    run, disk = epath.Path("gs://pods/runs/one"), epath.Path(tmp_path)
    tables = []
    for folder in (run, disk):
        write(folder, rows)
        discard_after(folder / "stats", 6)
        whole = reader.read_stats(folder)
        for prefix, host in (("base", 0), ("base", 1), ("train", 0), ("train", 1)):
            compact(folder / "stats", prefix, host, rows_at_once=30)
        assert reader.read_stats(folder).equals(whole)
        # A cut in the middle of a merged file, and going on from there.
        discard_after(folder / "stats", 4)
        tables.append((whole, reader.read_stats(folder)))
    assert all(a.equals(b) for a, b in zip(*tables, strict=True))
    assert set(tables[0][1]["step"]) == set(range(5)) and len(tables[0][1]) == 5 * 40
    names = [name.rsplit("/", 1)[1] for name in bucket]
    assert len(names) == 4 and all(shards.parse(name).merged for name in names)
    assert not any(files.is_temporary(name) for name in names)
    some = reader.read_stats(run, ["loss_sum"], "train", between=(7, 9))
    assert set(some["example_id"]) == {7, 8, 9} and set(some["kind"]) == {"train"}
    lazy = reader.scan_stats(run).filter(pl.col("step") == 2).select("visit", "example_id")
    assert (
        lazy.sort("example_id")
        .collect()
        .equals(reader.read_stats(disk).filter(pl.col("step") == 2).select("visit", "example_id"))
    )
    assert reader.scan_stats(run).head(7).collect().height == 7


def test_answers_and_the_record(bucket):
    run = epath.Path("gs://pods/runs/two")
    with pytest.raises(UserError, match="no such folder"):
        reader.read_stats(run)
    answers = pl.from_arrow(INFERENCE_SCHEMA.empty_table()).clear(2)
    answers = answers.with_columns(
        pl.Series("example_id", [1, 2]), pl.lit("greedy").alias("mode"), step=pl.lit(3, pl.Int64)
    ).with_columns(pl.col("stage", "epoch", "run", "prompt_variant").fill_null(0))
    put_inference(run, "stage_1", answers, 3)
    put_inference(run, "base", answers.with_columns(step=pl.lit(0, pl.Int64)), 0)
    assert reader.read_inference(run)["point"].to_list() == ["base"] * 2 + ["stage_1"] * 2
    discard_inference_after(run, 2)
    assert [name for name in bucket] == ["pods/runs/two/inference/base.parquet"]
    files.write_json(run / "run.json", {"config": {"seed": 1}})
    assert files.read_json(run / "run.json") == {"config": {"seed": 1}}


def test_tables_are_written_in_one_piece(bucket):
    path, table = "gs://pods/run/t.parquet", pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    parquet.write(path, table, {"k": "v"})
    assert list(bucket) == ["pods/run/t.parquet"]
    assert parquet.read(path).equals(table) and parquet.count_rows(path) == 2
    assert parquet.read_metadata(path)["k"] == "v"
    files.remove(path)
    assert bucket == {}
    with pytest.raises(UserError, match="no such file"):
        parquet.read(path)


def test_a_large_object_is_renamed_when_it_is_whole(bucket, monkeypatch):
    monkeypatch.setattr(atomic, "_IN_MEMORY", 1000)
    path, content = epath.Path("gs://pods/large"), np.arange(9999).tobytes()
    files.write_bytes(path, content)
    assert bucket == {"pods/large": content}

    def fails(*_):
        raise OSError("connection lost")

    monkeypatch.setattr(atomic.shutil, "copyfileobj", fails)
    with pytest.raises(OSError, match="connection lost"):
        files.write_bytes(path, b"x" * 2000)
    assert bucket["pods/large"] == content
    assert [files.is_temporary(name.split("/")[1]) for name in bucket] == [False, True]
    assert files.remove_temporaries(path.parent) == 1


def test_curves_go_up_whole_and_a_bucket_that_is_away_ends_them_alone(bucket, monkeypatch):
    run = epath.Path("gs://pods/runs/three")
    away = type("HttpError", (Exception,), {"__module__": "gcsfs.retry", "code": 503})

    def fails(*_):
        raise away("Backend Error")

    with MetricsLog(run) as log:
        monkeypatch.setattr(board, "_UPLOAD_SECONDS", -1.0)
        log.log(1, loss=2.0)
        (name,) = [name for name in bucket if "/tensorboard/events" in name]
        n_bytes = len(bucket[name])
        log.log(2, loss=1.0)
        assert len(bucket[name]) > n_bytes
        with monkeypatch.context() as patched:
            patched.setattr(board.files, "write_bytes", fails)
            log.log(3, loss=0.5)  # the curves end, the run does not
        log.log(4, loss=0.4)
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4]


def test_diagnosis_of_a_run_in_a_bucket(bucket, tmp_path):
    made = module(HERE.parents[1] / "benchmarks" / "made_run.py")
    made.EPOCHS = 2
    made.make(tmp_path / "run", 60, hosts=2)
    made.compact_all(tmp_path / "run")
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            bucket[f"pods/{path.relative_to(tmp_path)}"] = path.read_bytes()
    config = to_dict(default_config())
    config["detect"]["points"] = made.POINTS
    run = epath.Path("gs://pods/run")
    found = diagnose(run, config, {}, examples_at_once=25)
    # Nothing of it is on this machine's disk.
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert summary_file.read(run) == json.loads(files.to_json(found))
    on_disk = diagnose(tmp_path / "elsewhere", config, {}, examples_at_once=25)
    assert found == on_disk and found["n_examples"]["trained"] == 60
    assert reader.read_diagnosis(run).equals(reader.read_diagnosis(tmp_path / "elsewhere"))
