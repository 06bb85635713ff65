"""Folders and files with names that patterns, markup, shells or addresses are made of."""

import re
import shutil
import signal

import jax.numpy as jnp
import pytest

from ilp_jax import cli, files
from ilp_jax.analysis.parts import Parts
from ilp_jax.errors import UserError
from ilp_jax.stats import reader
from ilp_jax.train.checkpoint import BestCheckpoint, Checkpoints, abstract, check_place

NAMES = {
    "brackets": "r[1]",
    "a range": "[!a-z]",
    "closing": "a]b",
    "braces": "{a,b}",
    "star": "a*b",
    "two stars": "**",
    "question mark": "a?b",
    "spaces": " a  b ",
    "quotes": "q'u\"o`te",
    "percent": "per%20cent",
    "hash": "ha#sh",
    "unicode": "é漢\N{GRINNING FACE}",
    "dash": "-dash",
    "new line": "new\nline",
    "home": "~",
    "another home": "~root",
    "long": "x" * 255,
    "markup": "[red]a[bold] :smile:",
    "entity": "<b>&amp;",
    "variable": "$HOME",
    "comma": "a,b=c",
    "dots": "...",
    "colon": "file:",
}
# All in one name: every part of a run meets every character.
ALL = "-~[a-c]{d,e}*?** 'q\" %20#é漢\n$HOME[bold]:smile:"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_checkpoints_come_back(tmp_path, name):
    state = {"weights": jnp.arange(600.0).reshape(20, 30), "step": jnp.ones(3)}
    folder = tmp_path / name / "checkpoints"
    saved = Checkpoints(folder / "state")
    saved.save(3, state)
    saved.close()
    best = BestCheckpoint(folder / "best")
    assert best.offer(3, state, 0.5)
    best.close()
    for found in (Checkpoints(folder / "state"), BestCheckpoint(folder / "best")):
        asked = (3, abstract(state)) if isinstance(found, Checkpoints) else (abstract(state),)
        step, restored = found.restore(*asked)
        found.close()
        assert step == 3 and (restored["weights"] == state["weights"]).all()


@pytest.mark.parametrize(
    ("name", "why"), [("back\\slash", "backslash"), ("gs:/x", '"gs:"'), ("x/" * 2000, "too long")]
)
def test_folders_without_readable_checkpoints_are_refused(
    tmp_path, tiny_arguments, refused, name, why
):
    place = tmp_path / name
    with pytest.raises(UserError, match=why):
        check_place(place)
    line = refused("run", *tiny_arguments(place))
    assert ("too long" in line.lower()) if why == "too long" else (why in line)
    check_place("gs://bucket/run")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_tables_are_the_folder_s_own(finished_run, tmp_path, name):
    run = tmp_path / name
    shutil.copytree(finished_run / "stats", run / "stats")
    # What the name would mean as a pattern, too.
    for other in ("r1", "a", "b", "axb", "z"):
        (tmp_path / other / "stats").mkdir(parents=True)
        for path in (finished_run / "stats").iterdir():
            shutil.copy(path, tmp_path / other / "stats" / f"other.{path.name}")
    whole = reader.read_stats(finished_run)
    assert reader.read_stats(run).equals(whole)
    lazy = reader.scan_stats(run).collect()
    assert lazy.sort(whole.columns).equals(whole.sort(whole.columns))
    parts = Parts.__new__(Parts)
    parts._folder = run
    parts.put("kept", 0, whole)
    assert parts.get("kept", 0, ["step"]).equals(whole.select("step"))


def test_a_report_shows_its_own_run_alone(finished_run, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path / "r[1]")
    # As a pattern `r[1]` is this one, whose statistics are twice as many.
    shutil.copytree(finished_run, tmp_path / "r1")
    stats = tmp_path / "r1" / "stats"
    for path in list(stats.iterdir()):
        shutil.copy(path, stats / path.name.replace("host-0000", "host-0001"))
    before = files.read_json(finished_run / "summary.json")
    assert cli.main(["report", "--workdir", str(tmp_path / "r[1]")]) == 0
    assert f"Report: {tmp_path}/r[1]/report.html" in capsys.readouterr().out
    assert files.read_json(tmp_path / "r[1]" / "summary.json") == before
    out = tmp_path / "[b]{c}.html"
    both = ["--workdir", str(tmp_path / "r[1]"), str(finished_run)]
    assert cli.main(["report", *both, "--out", str(out)]) == 0
    one, other = files.read_json(out.with_suffix(".json"))["runs"]
    assert {**one, "name": ""} == {**other, "name": ""}


@pytest.mark.slow
def test_a_run_killed_and_finished_under_odd_names(
    finished_run, tiny, tiny_arguments, ilp, same_run, tmp_path
):
    home = tmp_path / ALL
    shutil.copytree(tiny, home)
    data = shutil.move(home / "rows.jsonl", home / f"{ALL}.jsonl")
    workdir = home / ALL
    words = tiny_arguments(workdir, model=home / "model", data=data)
    words[words.index("--workdir") : words.index("--workdir") + 2] = [f"--workdir={workdir}"]
    done = ilp("run", *words, killed_at=("ilp_jax.train.loop:record", 14, ""))
    assert done.returncode == -signal.SIGKILL, done.stderr
    done = ilp("run", *words)
    assert done.returncode == 0, done.stderr
    assert re.search(r"train 1[1-9]/36", done.stderr), done.stderr  # it went on, from update 10
    assert f"Report: {workdir}/report.html" in done.stdout
    assert reader.read_stats(workdir).shape == reader.read_stats(finished_run).shape
    for command in ("report", "diagnose"):
        done = ilp(command, f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
    out = home / "out" / ALL
    done = ilp("export", f"--workdir={workdir}", f"--out={out}")
    assert done.returncode == 0 and (out / "config.json").exists(), done.stderr


def test_a_home_is_a_text_s_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert files.as_path("~/run") == tmp_path / "home" / "run"
    assert files.as_path("./~/run") == files.as_path(files.as_path("./~/run"))
    assert str(files.as_path(str(files.as_path("./~")))) == str(tmp_path / "~")
    assert files.as_path("~nobody_of_that_name/x") == tmp_path / "~nobody_of_that_name" / "x"
    assert str(files.as_path("gs://bucket/run")) == "gs://bucket/run"


def test_a_file_of_the_longest_name_is_written(tmp_path):
    for name in ("x" * 255, "é" * 127):
        files.write_text(tmp_path / name, "here")
        assert (tmp_path / name).read_text() == "here"
    assert len(list(tmp_path.iterdir())) == 2
