"""Other thresholds diagnose a finished run again, and repeat nothing else."""

import json
import shutil

import pytest

from ilp_jax import cli

BEFORE = ("probe", "train", "detect")


@pytest.fixture
def workdir(finished_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy, ignore=shutil.ignore_patterns(".lock"))
    return copy


def contents(workdir):
    """Of all files but the diagnosis' own, and the report, which shows it."""
    own = ("run.json", ".lock", "summary.json", "diagnosis.parquet", "signals.parquet")
    own += ("report.html",)
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in workdir.rglob("*")
        if path.is_file() and path.name not in own
    }


def record(workdir):
    return json.loads((workdir / "run.json").read_text())


@pytest.mark.parametrize("command", ["run", "diagnose"])
def test_other_thresholds_repeat_the_diagnosis_alone(command, workdir, capsys):
    before, was = contents(workdir), record(workdir)
    (workdir / "summary.json").unlink()
    words = [command, "--workdir", str(workdir)]
    assert cli.main([*words, "--config.diagnose.forgotten_drop=0.3"]) == 0
    assert "Share unlearned" in capsys.readouterr().out
    now = record(workdir)
    assert now["config"]["diagnose"]["forgotten_drop"] == 0.3
    assert now["config_hash"] == was["config_hash"]
    assert now["finished"]["diagnose"] != was["finished"]["diagnose"]
    for phase in BEFORE:
        assert now["seconds"][phase] == was["seconds"][phase]
    assert contents(workdir) == before
    # The same thresholds again: nothing is done.
    first = (workdir / "summary.json").stat().st_mtime_ns
    assert cli.main(words) == 0
    assert (workdir / "summary.json").stat().st_mtime_ns == first


def test_a_field_with_results_is_refused_and_named_alone(workdir, capsys):
    words = ["diagnose", "--workdir", str(workdir), "--config.diagnose.forgotten_drop=0.3"]
    assert cli.main([*words, "--config.detect.n_samples=6"]) == 2
    line = capsys.readouterr().err
    assert "detect.n_samples was 5, now 6" in line and "forgotten_drop" not in line
