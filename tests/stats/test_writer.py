import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings

from ilp_jax import files, parquet
from ilp_jax.errors import RunFailure
from ilp_jax.stats import reader, shards, writer
from ilp_jax.stats.schema import KEY, STATS_SCHEMA
from ilp_jax.stats.writer import StatsWriter, compact, discard_after


def test_rows_come_back_with_exact_values_and_types(tmp_path, rows):
    columns = rows([5, 3, 2**62], visit=1)
    columns["loss_sum"] = np.array([0.1, 1e-30, 3e38], np.float32)
    columns["grad_norm"] = np.array([np.nan, 0.5, np.float32(1 / 3)], np.float32)
    with StatsWriter(tmp_path / "stats", metadata={"run": "x"}) as w:
        w.append(7, columns)
    table = reader.read_stats(tmp_path)
    assert table["example_id"].to_list() == [3, 5, 2**62]
    order = [1, 0, 2]
    assert table["loss_sum"].to_numpy().tobytes() == columns["loss_sum"][order].tobytes()
    assert table["grad_norm"].to_list() == [0.5, None, float(np.float32(1 / 3))]
    assert table["grad_norm_head"].null_count() == 3
    assert table["step"].to_list() == [7, 7, 7]
    assert table["kind"].to_list() == ["train"] * 3
    assert table.columns == STATS_SCHEMA.names
    (path,) = files.list_files(tmp_path / "stats")
    assert parquet.read_arrow(path).schema.equals(STATS_SCHEMA)
    assert parquet.read_metadata(path)["run"] == "x"


def test_names_say_range_host_and_phase(tmp_path, rows):
    with StatsWriter(tmp_path, "base", host=3) as w:
        w.append(0, rows([1]))
    with StatsWriter(tmp_path, host=12) as w:
        for step in range(1, 6):
            w.append(step, rows([step]))
            if step == 3:
                w.flush()
                w.flush()
        w.append(5, rows([5], visit=1))
    assert [p.name for p in files.list_files(tmp_path)] == [
        "base.steps-000000000-000000000.host-0003.parquet",
        "train.steps-000000001-000000003.host-0012.parquet",
        "train.steps-000000004-000000005.host-0012.parquet",
    ]
    for path in files.list_files(tmp_path):
        assert shards.parse(path.name).name == path.name
    assert shards.parse("notes.parquet") is None


def test_same_range_twice_gets_another_name(tmp_path, rows, keys):
    with StatsWriter(tmp_path / "stats") as w:
        for visit in range(3):
            w.append(4, rows([1], visit))
            w.flush()
    assert len(files.list_files(tmp_path / "stats")) == 3
    assert len(reader.read_stats(tmp_path)) == 3
    compact(tmp_path / "stats")
    # A name that was merged away must not come back: its rows would not count.
    with StatsWriter(tmp_path / "stats") as w:
        w.append(4, rows([1], 9))
    assert [k[-1] for k in keys(reader.read_stats(tmp_path))] == [0, 1, 2, 9]


def test_wrong_rows_are_refused_at_once(tmp_path, rows):
    with StatsWriter(tmp_path) as w:
        good = rows([1, 2])
        for bad in (
            {k: v for k, v in good.items() if k != "loss_sum"},
            {**good, "surprise": 1},
            {**good, "loss_sum": np.zeros(3, np.float32)},
            {**good, "loss_sum": np.zeros((2, 1), np.float32)},
            {**good, "step": np.array([1, 2])},
        ):
            with pytest.raises(ValueError):
                w.append(1, bad)
        w.append(1, rows([]))
    assert files.list_files(tmp_path) == []
    with pytest.raises(ValueError):
        StatsWriter(tmp_path, prefix="no.dots")


def test_large_buffers_are_written_without_a_flush(tmp_path, rows):
    with StatsWriter(tmp_path, rows_per_shard=10) as w:
        for step in range(1, 40):
            w.append(step, rows([1, 2, 3, 4], visit=step))
        assert w._rows < 10
    assert len(files.list_files(tmp_path)) == 13


def test_append_does_not_wait_for_the_disk(tmp_path, rows, monkeypatch):
    go = threading.Event()
    real = writer._put
    monkeypatch.setattr(writer, "_put", lambda *a: (go.wait(60), real(*a)))
    with StatsWriter(tmp_path, rows_per_shard=1) as w:
        w.append(1, rows([1]))
        w.append(2, rows([1]))
        assert files.list_files(tmp_path) == []
        go.set()
        w.flush()
        assert len(files.list_files(tmp_path)) == 2


def test_full_disk_reaches_the_loop_and_stays(tmp_path, rows, monkeypatch):
    def full(*_):
        raise files.disk_full("there", 10)

    w = StatsWriter(tmp_path / "stats", rows_per_shard=1)
    w.append(1, rows([1]))
    w.flush()
    monkeypatch.setattr(writer, "_put", full)
    w.append(2, rows([1]))
    deadline = time.monotonic() + 30
    with pytest.raises(RunFailure, match="disk is full"):
        while time.monotonic() < deadline:
            w.append(3, rows([1]))
    monkeypatch.undo()
    for call in (w.flush, w.close, lambda: w.append(4, rows([1]))):
        with pytest.raises(RunFailure, match="disk is full"):
            call()
    # Nothing after the hole: rows of 3 without those of 2 would look whole.
    assert reader.read_stats(tmp_path)["step"].to_list() == [1]


def test_an_error_under_way_is_not_hidden(tmp_path, rows, monkeypatch):
    def full(*_):
        raise files.disk_full("there", 10)

    monkeypatch.setattr(writer, "_put", full)
    with pytest.raises(KeyError), StatsWriter(tmp_path) as w:
        w.append(1, rows([1]))
        raise KeyError("first")


def test_discard_keeps_the_base_and_cuts_straddling_shards(tmp_path, rows):
    folder = tmp_path / "stats"
    with StatsWriter(folder, "base") as w:
        w.append(0, rows([1], kind="probe"))
    with StatsWriter(folder) as w:
        for step in range(1, 10):
            w.append(step, rows([step]))
            if step % 3 == 0:
                w.flush()
    discard_after(folder, 5)
    assert reader.read_stats(tmp_path)["step"].sort().to_list() == [0, 1, 2, 3, 4, 5]
    assert "train.steps-000000004-000000005.host-0000.parquet" in os.listdir(folder)
    discard_after(folder, -1)
    assert os.listdir(folder) == ["base.steps-000000000-000000000.host-0000.parquet"]
    discard_after(folder, -1, "base")
    assert os.listdir(folder) == []
    discard_after(tmp_path / "none", -1)


def test_discard_takes_other_hosts_along(tmp_path, rows):
    for host in range(3):
        with StatsWriter(tmp_path, host=host) as w:
            w.append(5, rows([host]))
    discard_after(tmp_path, 4, host=1)
    assert len(files.list_files(tmp_path)) == 2
    discard_after(tmp_path, 4)
    assert files.list_files(tmp_path) == []


def test_compaction_sorts_and_keeps_hosts_apart(tmp_path, rows, keys):
    folder = tmp_path / "stats"
    for host in (0, 1):
        with StatsWriter(folder, host=host, metadata={"run": "x"}) as w:
            for step in range(1, 7):
                w.append(step, rows([9 - step, step], host))
                w.flush()
    before = reader.read_stats(tmp_path)
    assert (
        compact(folder, host=0).name == "train.steps-000000001-000000006.host-0000.merged.parquet"
    )
    assert len(files.list_files(folder)) == 7
    compact(folder, host=1)
    assert len(files.list_files(folder)) == 2
    assert reader.read_stats(tmp_path).equals(before)
    for path in files.list_files(folder):
        table = parquet.read(path)
        assert keys(table) == sorted(keys(table))
        assert parquet.read_metadata(path)["run"] == "x"
        assert parquet.read_arrow(path).schema.equals(STATS_SCHEMA)
    assert compact(folder, host=0).exists()
    assert compact(folder, "base") is None


def test_compaction_refuses_duplicates(tmp_path, rows):
    with StatsWriter(tmp_path) as w:
        w.append(1, rows([1]))
        w.flush()
        w.append(1, rows([1]))
    with pytest.raises(RunFailure, match="same key twice"):
        compact(tmp_path)
    assert len(files.list_files(tmp_path)) == 2


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("probe"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.sampled_from(["step", "step", "checkpoint", "crash", "compact", "restart"])),
        st.tuples(st.just("restore"), st.integers(0, 12)),
        st.tuples(st.just("killed_compact"), st.integers(0, 3)),
    ),
    max_size=40,
)


class _Killed(BaseException):
    pass


def _killed_compact(folder, n_removals, at_once=1000):
    """Compaction that dies before the deletion number n_removals."""
    real, left = files.remove, [n_removals]

    def remove(path):
        if not left[0]:
            raise _Killed
        left[0] -= 1
        real(path)

    files.remove = remove
    try:
        compact(folder, rows_at_once=at_once)
    except _Killed:
        pass
    finally:
        files.remove = real


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    operations=OPERATIONS,
    rows_per_shard=st.sampled_from([3, 1000]),
    at_once=st.sampled_from([4, 1000]),
)
def test_any_history_equals_a_list(rows, operations, rows_per_shard, at_once):
    """Append, flush, crash, restore, compact in any order: what a plain list would hold."""
    with tempfile.TemporaryDirectory() as run:
        folder = os.path.join(run, "stats")

        def writers():
            return [StatsWriter(folder, host=h, rows_per_shard=rows_per_shard) for h in (0, 1)]

        open_writers = writers()
        durable, pending = [], []  # rows as (example, kind, stage, epoch, step, visit)
        step = saved = 1
        visit = 0

        def abandon():
            for w in open_writers:
                w._thread.shutdown()

        for operation, *arguments in operations:
            if operation in ("append", "probe"):
                host, n = arguments
                # What follows a checkpoint belongs to a later step.
                step = max(step, saved + 1)
                visit += 1
                kind = "train" if operation == "append" else "probe"
                open_writers[host].append(step, rows(range(n), visit, kind=kind))
                pending += [(i, kind, 1, 1, step, visit) for i in range(n)]
            elif operation == "step":
                step += 1
            elif operation == "checkpoint":
                for w in open_writers:
                    w.flush()
                durable, pending, saved = durable + pending, [], step
            elif operation in ("crash", "restart", "restore"):
                abandon()
                back = {"crash": saved, "restart": -1}.get(operation)
                back = min(saved, arguments[0]) if back is None else back
                discard_after(folder, back)
                durable, pending = [row for row in durable if row[4] <= back], []
                step = saved = max(back, 0)
                open_writers = writers()
            elif operation in ("compact", "killed_compact"):
                for w in open_writers:
                    w.close()
                durable, pending, saved = durable + pending, [], step
                if operation == "compact":
                    compact(folder, rows_at_once=at_once)
                else:
                    _killed_compact(folder, *arguments, at_once)
                open_writers = writers()
            if not pending:
                table = reader.read_stats(run)
                assert table.select(KEY).rows() == sorted(durable)
        for w in open_writers:
            w.close()
        compact(folder, host=0, rows_at_once=at_once)
        compact(folder, host=1, rows_at_once=at_once)
        table = reader.read_stats(run)
        reader.check_unique(table)
        assert table.select(KEY).rows() == sorted(durable + pending)
        for row in table.partition_by("visit"):
            wanted = rows(row["example_id"].to_list(), row["visit"][0])
            assert np.array_equal(row["loss_sum"].to_numpy(), wanted["loss_sum"])


@pytest.mark.parametrize("n_removals", range(5))
def test_restore_after_a_killed_compaction(tmp_path, rows, keys, n_removals):
    """Shards that a merged file replaced stay out when that file itself is cut."""
    folder = tmp_path / "stats"
    with StatsWriter(folder) as w:
        for step in range(1, 5):
            w.append(step, rows([1, 2], visit=step))
            w.flush()
    whole = keys(reader.read_stats(tmp_path))
    _killed_compact(folder, n_removals)
    assert keys(reader.read_stats(tmp_path)) == whole
    discard_after(folder, 2)
    assert keys(reader.read_stats(tmp_path)) == [key for key in whole if key[4] <= 2]
    with StatsWriter(folder) as w:
        for step in (3, 4):
            w.append(step, rows([1, 2], visit=step))
            w.flush()
    assert keys(reader.read_stats(tmp_path)) == whole


CHILD = """
import os, signal, sys, time
import numpy as np
import pyarrow.parquet as pq
from ilp_jax.stats.schema import STATS_SCHEMA
from ilp_jax.stats.writer import StatsWriter, compact
folder, moment = sys.argv[1:]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def rows(n, visit):
    columns = {f.name: np.full(n, visit, np.int64) for f in STATS_SCHEMA if f.name != "step"}
    columns = {k: v if STATS_SCHEMA.field(k).type != "float" else v.astype(np.float32)
               for k, v in columns.items()}
    return columns | {"example_id": np.arange(n), "kind": "train"}
w = StatsWriter(folder)
for step in range(1, 10_000):
    w.append(step, rows(300, step))
    if moment != "random" and step == 4:
        if moment == "write": pq.write_table = die
        if moment == "replace": os.replace = die
        if moment == "after":
            real = os.replace
            os.replace = lambda *a: (real(*a), die())
    w.flush()
    print(step, flush=True)
"""


@pytest.mark.parametrize("moment", ["write", "replace", "after", "random"])
def test_killed_in_a_flush(tmp_path, rows, moment):
    """Flushed rows survive SIGKILL whole; going on from the last flush repeats nothing."""
    folder = tmp_path / "stats"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), moment], stdout=subprocess.PIPE, text=True
    )
    said = []
    for line in child.stdout:
        said.append(int(line))
        if moment == "random" and len(said) == 7:
            child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    flushed = said[-1]
    assert flushed == 3 if moment != "random" else flushed >= 7
    table = reader.read_stats(tmp_path)
    counts = dict(table.group_by("step").len().rows())
    assert all(counts[step] == 300 for step in range(1, flushed + 1))
    assert set(counts) <= set(range(1, flushed + 2)) and set(counts.values()) == {300}
    if moment == "after":
        assert flushed + 1 in counts
    discard_after(folder, flushed)
    with StatsWriter(folder) as w:
        assert not any(files.is_temporary(name) for name in os.listdir(folder))
        w.append(flushed + 1, rows(range(300), visit=flushed + 1))
    table = reader.read_stats(tmp_path)
    reader.check_unique(table)
    assert len(table) == 300 * (flushed + 1)
    assert table["step"].n_unique() == flushed + 1
    compact(folder)
    assert reader.read_stats(tmp_path).equals(table)


def test_lazy_scan_has_the_same_rows(tmp_path, rows):
    with StatsWriter(tmp_path / "stats") as w:
        for step in (1, 2):
            w.append(step, rows([1, 2]))
            w.flush()
    lazy = reader.scan_stats(tmp_path).filter(pl.col("step") == 2).sort(KEY).collect()
    assert lazy.equals(reader.read_stats(tmp_path).filter(pl.col("step") == 2))
