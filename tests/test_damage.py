"""Damage to a run's files is noticed in one line, or harmless, or made good."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from ilp_jax import cli, files, outputs, parquet, run_record, seal
from ilp_jax.analysis import summary_file
from ilp_jax.errors import UserError
from ilp_jax.stats import reader
from ilp_jax.sweep import ledger

ROWS = pl.DataFrame({"id": range(40), "text": ["a", None, "ü", "d"] * 10, "x": [0.5, 1, 2, 3] * 10})


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the finished study, to be damaged."""
    return shutil.copytree(finished_run, tmp_path / "run")


def flipped(content, bit):
    out = bytearray(content)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def test_no_flipped_bit_of_a_table_is_read(tmp_path):
    path = tmp_path / "t.parquet"
    parquet.write(path, ROWS)
    whole = path.read_bytes()
    # Every bit of the checksum and of the end, where the footer's length stands; others by turns.
    place = whole.index(seal.MARK)
    bits = {*range(0, 8 * len(whole), 7), *range(8 * place, 8 * place + 128)}
    for bit in sorted(bits | set(range(8 * len(whole) - 64, 8 * len(whole)))):
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(UserError, match="not a readable Parquet file"):
            parquet.read(path)
    path.write_bytes(whole)
    assert parquet.read(path).equals(ROWS)


def test_no_flipped_bit_of_a_run_is_read(run):
    draw = np.random.default_rng(0)
    tables = sorted(run.rglob("*.parquet"))
    assert len(tables) >= 10
    for path in tables:
        whole = path.read_bytes()
        for bit in draw.integers(8 * len(whole), size=20):
            path.write_bytes(flipped(whole, int(bit)))
            with pytest.raises(UserError, match="not a readable Parquet file"):
                parquet.read_metadata(path)
            if path.parent.name == "stats":
                with pytest.raises(UserError, match="not a readable Parquet file"):
                    reader.scan_stats(run)
        path.write_bytes(whole)
        parquet.check(path)


def test_other_readers_pass_over_the_checksum_and_compare_the_pages(tmp_path):
    path = tmp_path / "t.parquet"
    parquet.write(path, ROWS)
    assert pl.read_parquet(path).equals(ROWS)
    assert pl.scan_parquet(path).filter(pl.col("id") > 30).collect().equals(ROWS[31:])
    checked = pq.read_table(path, page_checksum_verification=True)
    assert pl.from_arrow(checked).equals(ROWS)
    place = pq.ParquetFile(path).metadata.row_group(0).column(2)
    end = place.dictionary_page_offset + place.total_compressed_size - 1
    path.write_bytes(flipped(path.read_bytes(), 8 * end))
    with pytest.raises(OSError, match="CRC checksum"):
        pq.read_table(path, page_checksum_verification=True)


def test_a_table_of_before_has_no_checksum_and_is_read(tmp_path):
    path = tmp_path / "t.parquet"
    ROWS.write_parquet(path)
    assert parquet.read(path).equals(ROWS)
    with pytest.raises(UserError, match="has no column y"):
        parquet.read(path, ["id", "y"])


def test_a_change_right_after_a_check_is_seen(tmp_path):
    path = tmp_path / "t.parquet"
    for _ in range(20):
        parquet.write(path, ROWS)
        assert seal.check(str(path))
        path.write_bytes(flipped(path.read_bytes(), 200))
        with pytest.raises(ValueError, match="differs"):
            seal.check(str(path))


WRONG = {"[]": "[]", "null": "null", "a number": "3", "empty": "", "deep": "[" * 99_999}


@pytest.mark.parametrize("content", [*WRONG.values(), "{}", None], ids=[*WRONG, "{}", "folder"])
@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_json_that_is_none_of_ours(run, refused, name, content):
    path = run / name
    path.unlink()
    path.mkdir() if content is None else path.write_text(content)
    for words in (["report"], ["report", "--out", run / "page.html"], ["diagnose"]):
        if name == "summary.json" and words[0] == "diagnose":
            continue  # which writes it anew
        assert name in refused(*words, "--workdir", run)


@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_flipped_bits_of_json_end_in_a_line(run, name, capsys):
    """Those of ``summary.json`` are noticed; of ``run.json`` none ends in a traceback."""
    draw, path = np.random.default_rng(0), run / name
    whole = path.read_bytes()
    read = summary_file.read if name == "summary.json" else run_record.read
    figures = read(run)
    for bit in draw.integers(8 * len(whole), size=300):
        path.write_bytes(flipped(whole, int(bit)))
        try:
            found = read(run)
        except UserError as error:
            assert name in str(error)
        else:
            assert name == "run.json" or found == figures


@pytest.mark.parametrize(
    ("name", "damage", "again"),
    [
        ("report.html", "gone", "report"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in [
                ("report.html", "cut", "report"),
                ("report.html", "folder", "report"),
                ("diagnosis.parquet", "gone", "diagnose"),
                ("signals.parquet", "flipped", "diagnose"),
                ("summary.json", "[]", "diagnose"),
                ("summary.json", "folder", "diagnose"),
                ("inference/final.parquet", "gone", "detect"),
                ("inference/final.parquet", "flipped", "detect"),
                ("stats/base.", "flipped", "probe"),
                ("inference/base.parquet", "[]", "probe"),
            ]
        ),
    ],
)
def test_a_finished_run_makes_good_what_is_gone(
    finished_run, run, tiny_arguments, ilp, same_run, name, damage, again
):
    (path,) = [p for p in run.rglob("*") if str(p.relative_to(run)).startswith(name)]
    content, name = path.read_bytes(), path.name
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        new = {"cut": content[: len(content) // 2], "flipped": flipped(content, 999), "[]": b"[]"}
        path.write_bytes(new[damage])
    done = ilp("run", *tiny_arguments(run))
    if damage == "folder":
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("ilp: error: ") and name in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert f"{name}: " in done.stderr and f"{again} is run again" in done.stderr
    aside = path.parent / f"{name}.damaged"
    assert aside.exists() == (damage != "gone")
    aside.unlink(missing_ok=True)
    same_run(finished_run, run)
    assert (run / "report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize("damage", ["gone", "flipped", "folder"])
@pytest.mark.parametrize("prefix", ["stats/train", "inference/stage_1", "examples"])
def test_what_is_not_made_again_is_named(run, tiny_arguments, refused, prefix, damage):
    (path,) = [p for p in run.rglob("*.parquet") if str(p.relative_to(run)).startswith(prefix)]
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    if damage == "flipped":
        path.write_bytes(flipped(content, 8 * len(content) // 2))
    record = (run / "run.json").read_bytes()
    finished = json.loads(record)["finished"]
    # Of several ways into the run each says so.
    for words in (["run", *tiny_arguments(run)], ["report", "--workdir", run]):
        line = refused(*words)
        assert path.name in line and "restore it" in line, line
    assert json.loads((run / "run.json").read_bytes())["finished"] == finished


def test_report_takes_the_lock_before_it_changes_anything(run, refused):
    before = (run / "run.json").read_bytes()
    with run_record.locked(run):
        assert "another process" in refused("report", "--workdir", run)
    assert (run / "run.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["probe base 23", "train 4/36", "train 20/36", "ask final 8"])
def test_a_workdir_deleted_in_mid_run(tiny_arguments, ilp, tmp_path, moment):
    workdir, log = tmp_path / "run", tmp_path / "log"
    with open(log, "w") as file:
        process = ilp("run", *tiny_arguments(workdir), start=True, stderr=file)
        while moment not in log.read_text() and process.poll() is None:
            time.sleep(0.02)
        shutil.rmtree(workdir, ignore_errors=True)
        code = process.wait()
    told = log.read_text()
    assert code == 1 and "Traceback" not in told, told
    assert told.splitlines()[-1].startswith(f"ilp: error: {workdir}: was deleted"), told


def test_files_says_what_a_path_is(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(UserError, match=r"holds no JSON object but \[1\]"):
        files.read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="is a folder"):
        files.read_json(tmp_path)
    with pytest.raises(UserError, match="is a folder"):
        parquet.read(tmp_path)
    assert cli.main(["report", "--workdir", str(tmp_path / "x.json")]) == 2


def test_a_sweep_does_not_take_a_run_without_its_report_for_done(run):
    assert ledger.finished(files.as_path(run))
    (run / "report.html").unlink()
    assert not ledger.finished(files.as_path(run))


def test_a_finished_run_of_before_has_no_lists_and_is_finished(run):
    record = files.read_json(run / "run.json")
    del record["made"]
    files.write_json(run / "run.json", record)
    figures = {k: v for k, v in files.read_json(run / "summary.json").items() if k != "checksum"}
    files.write_json(run / "summary.json", figures)
    assert not any(outputs.fault(run, phase) for phase in record["finished"])
    assert cli.main(["report", "--workdir", str(run)]) == 0
    (run / "signals.parquet").unlink()
    assert outputs.fault(run, "diagnose").made_again


SAVES = """
import random, shutil, sys, time
import jax.numpy as jnp
from ilp_jax.train.checkpoint import Checkpoints

draw = random.Random(0)
for k in range(12):
    saved = Checkpoints(f"{sys.argv[1]}/{k}/state")
    saved.save(1, {f"w{i}": jnp.arange(20_000.0) for i in range(40)})
    time.sleep(draw.uniform(0, 0.05))
    shutil.rmtree(f"{sys.argv[1]}/{k}", ignore_errors=True)
    try:
        saved.close()
    except Exception as error:
        print("failed:", type(error).__name__)
"""


@pytest.mark.slow
def test_a_folder_deleted_in_a_save_gives_one_error_and_no_traceback(tmp_path):
    words = [sys.executable, "-c", SAVES, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and "failed:" in done.stdout, done
    assert "Traceback" not in done.stderr, done.stderr
