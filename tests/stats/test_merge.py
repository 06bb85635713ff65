"""Sorting more rows than are held at once."""

import os
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from ilp_jax import files, parquet
from ilp_jax.errors import RunFailure
from ilp_jax.stats import merge, reader
from ilp_jax.stats.schema import KEY
from ilp_jax.stats.writer import StatsWriter, compact


def write(folder, rows, n_steps, ids_of, seed=0):
    rng = np.random.default_rng(seed)
    with StatsWriter(folder) as w:
        for step in range(1, n_steps + 1):
            w.append(step, rows(rng.permutation(ids_of(step)), visit=step))
            w.flush()


@pytest.mark.parametrize("at_once", [7, 50, 10_000])
@pytest.mark.parametrize("ids_of", [lambda step: range(40), lambda step: [5, 2**62, 0]])
def test_parts_are_the_whole_sorted(tmp_path, rows, at_once, ids_of):
    folder = files.as_path(tmp_path / "stats")
    write(folder, rows, 9, ids_of)
    wanted = pl.concat(parquet.read(p) for p in files.list_files(folder)).sort(KEY)
    parts = list(merge.sorted_by_key(files.list_files(folder), folder, at_once))
    assert pl.concat(pl.from_arrow(part) for part in parts).equals(wanted)
    # No example in two parts, and none far larger than was asked for.
    ids = [set(part["example_id"].to_pylist()) for part in parts]
    assert sum(map(len, ids)) == len(set().union(*ids))
    if len(wanted) == 9 * 40:
        assert max(part.num_rows for part in parts) <= max(2 * at_once, 9)
    compact(folder, rows_at_once=at_once)
    assert parquet.read(files.list_files(folder)[0]).equals(wanted)
    assert reader.read_stats(tmp_path).equals(wanted)


@pytest.mark.parametrize("at_once", [4, 1000])
def test_duplicates_are_found_in_any_part(tmp_path, rows, at_once):
    write(tmp_path, rows, 4, lambda step: range(20))
    with StatsWriter(tmp_path) as w:
        w.append(3, rows([11], visit=3))
    before = os.listdir(tmp_path)
    with pytest.raises(RunFailure, match="same key twice"):
        compact(tmp_path, rows_at_once=at_once)
    assert os.listdir(tmp_path) == before


KILLED = """
import os, signal, sys
from ilp_jax.stats import merge, writer
real = merge._sorted
def die_at_third(*a, seen=[]):
    seen.append(1)
    if len(seen) == 3: os.kill(os.getpid(), signal.SIGKILL)
    return real(*a)
merge._sorted = die_at_third
writer.compact(sys.argv[1], rows_at_once=10)
"""


def test_killed_between_parts_leaves_the_shards(tmp_path, rows):
    write(tmp_path / "stats", rows, 5, lambda step: range(20))
    whole, before = reader.read_stats(tmp_path), set(os.listdir(tmp_path / "stats"))
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "stats")])
    assert done.returncode == -signal.SIGKILL
    left = set(os.listdir(tmp_path / "stats")) - before
    assert len(left) == 1 and all(map(files.is_temporary, left))
    assert reader.read_stats(tmp_path).equals(whole)
    compact(tmp_path / "stats", rows_at_once=10)
    assert reader.read_stats(tmp_path).equals(whole)
