"""``ilp report`` on a finished run: written again when asked for, and by ``run`` when it must."""

import json
import shutil

import pytest

from ilp_jax import cli


@pytest.fixture
def workdir(finished_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy, ignore=shutil.ignore_patterns(".lock"))
    return copy


def test_other_fields_write_the_report_alone_again(workdir, capsys):
    page, words = workdir / "report.html", ["--workdir", str(workdir)]
    with_texts = page.read_bytes()
    before = (workdir / "diagnosis.parquet").stat().st_mtime_ns
    assert cli.main(["run", *words]) == 0
    assert page.read_bytes() == with_texts and b"answer7" in with_texts
    assert cli.main(["run", *words, "--config.report.include_text=false"]) == 0
    assert b"answer7" not in page.read_bytes()
    assert (workdir / "diagnosis.parquet").stat().st_mtime_ns == before
    assert json.loads((workdir / "summary.json").read_text())["report"]["verdict"]
    capsys.readouterr()
    page.unlink()
    assert cli.main(["report", *words]) == 0
    assert capsys.readouterr().out == f"Report: {page}\n" and page.exists()
    assert b"answer7" not in page.read_bytes()


def test_needs_the_phases_before(workdir, capsys):
    record = json.loads((workdir / "run.json").read_text())
    del record["finished"]["diagnose"]
    (workdir / "run.json").write_text(json.dumps(record))
    assert cli.main(["report", "--workdir", str(workdir)]) == 2
    assert "report needs the phase diagnose" in capsys.readouterr().err
    assert cli.main(["report", "--workdir", str(workdir / "nowhere")]) == 2
    assert not (workdir / "nowhere").exists()
