"""Rows for which detectors are absent, through the real commands: every run ends in its results."""

import itertools
import json
import shutil

import jax
import pytest

from ilp_jax import cli
from ilp_jax.analysis.report import page

NAMES = [f"name{i}" for i in range(24)]
OWN = "configs/own.py"
CHANGES = {
    "no options": {"options": "none"},
    "options everywhere": {"options": "all"},
    "all long": {"long": "all"},
    "all short": {"long": "none"},
    "one row": {"rows": 1},
    "one stage": {"stages": 1},
    "nothing unlearned": {"learned": True},
    "nothing learned": {"rate": 0.0},
    "held-out rows": {"held_out": 2},
    "rows alike": {"alike": True},
    "fewer rows than a batch": {"rows": 3, "batch": 8},
}
"""By default: 8 rows in two stages, some long, some with options, none held out."""


def rows(options="some", long="some", rows=8, stages=2, alike=False, **_):
    """Rows of a file: questions of the tiny model's words."""

    def some(which, i):
        return which == "all" or (which == "some" and i % 2 == 0)

    out = []
    for i in range(rows):
        number = 0 if alike else i
        words = 20 if some(long, i // 2) else 1 + number % 2
        response = " ".join(f"answer{(number + k) % 16}" for k in range(words))
        one = {"id": f"q{i}", "prompt": f"what is {NAMES[number]} ?", "response": response}
        if some(options, i):
            one["options"] = [response, "old new", "red"]
        out.append(one | ({"stage": 1 + i % stages} if stages > 1 and rows > 1 else {}))
    return out


def pairs():
    """All pairs of changes that do not touch the same thing."""
    for one, other in itertools.combinations(CHANGES, 2):
        if not set(CHANGES[one]) & set(CHANGES[other]):
            yield one, other


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Programs of equal shapes are compiled once for all runs of this file."""
    names = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, tiny_model):
    """Another model of the tiny one's shape and words."""
    return tiny_model(tmp_path_factory.mktemp("other") / "model", seed=7)


def call(capsys, *words, code=0):
    """What a command prints, in one line; nothing of it is a traceback."""
    assert cli.main([str(word) for word in words]) == code, capsys.readouterr().err
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return " ".join((shown.out if code == 0 else shown.err).split())


def results(workdir):
    summary = json.loads((workdir / "summary.json").read_text(), parse_constant=pytest.fail)
    html = (workdir / "report.html").read_text()
    for word in ("None", "nan", "undefined"):
        assert word not in html.split("<script")[0], word
    told = summary["default_verdicts"]
    if told["known"] < told["trained"]:
        assert "is not known by default" in html
    return summary, html


def study(tmp_path, tiny, capsys, learned=False, rate=0.05, held_out=0, batch=4, **which):
    """Runs a study; its folder and what it printed."""
    data, workdir = tmp_path / "rows.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(**which)))
    own = f"{OWN}:model={tiny}/model,data={data},epochs={40 if learned else 1},batch_size={batch}"
    arguments = f"{own},learning_rate={rate},held_out={held_out}"
    more = ["--config.length_buckets=64", "--config.train.loss_normalization=token"]
    return workdir, call(capsys, "run", "--config", arguments, "--workdir", workdir, *more)


def trained_here(tmp_path, tiny, capsys, which):
    """`ilp run` of such rows; its folder, None where the rows asked for are refused in a line."""
    try:
        workdir, shown = study(tmp_path, tiny, capsys, **which)
    except AssertionError as error:
        assert "held out, and has" in str(error), error  # one row cannot be held out and trained
        return None
    told = results(workdir)[0]["default_verdicts"]
    assert shown.count("is not known by default") == (told["known"] < told["trained"])
    assert shown.endswith("report.html") and "trained rows" in shown
    return workdir


def tuned_elsewhere(tmp_path, tiny, tuned, capsys):
    """`ilp detect --tuned` of the same rows, its diagnosis and report."""
    asked, data = tmp_path / "asked", tmp_path / "rows.jsonl"
    pair = ["--base", f"{tiny}/model", "--tuned", tuned, "--data", data]
    more = ["--config.detect.max_new_tokens=24", "--config.length_buckets=64"]
    call(capsys, "detect", *pair, "--workdir", asked, *more)
    shown = call(capsys, "diagnose", "--workdir", asked)
    call(capsys, "report", "--workdir", asked)
    _, html = results(asked)
    assert "rows given as trained" in shown and "Convergence" not in shown
    for text in (shown, html.split("<script type")[0]):
        assert "2e-05" not in text and "2 epochs" not in text and "not reached" not in text


def other_commands(workdir, tmp_path, capsys):
    """The commands that begin from a finished run: their tables, or one line that says why not."""
    summary, _ = results(workdir)
    again = call(capsys, "report", "--workdir", workdir)
    assert again.startswith("Report: ") and results(workdir)[0] == summary
    # A second run beside it, from the same files: one report of both.
    other = shutil.copytree(workdir, tmp_path / "other")
    both = ["--workdir", workdir, "--workdir", other, "--out", tmp_path / "both.html"]
    call(capsys, "report", *both)
    known = summary["default_verdicts"]["known"]
    line = call(capsys, "replay", "--workdir", workdir, "--limit", 1, code=0 if known else 2)
    assert ("detector default" if known else "no verdict of 'default'") in line
    assert "planted" in call(capsys, "evaluate", "--workdir", workdir, code=2)
    arms = ["--config.mitigate.arms=as_is", "--config.mitigate.seeds=1"]
    assert cli.main(["mitigate", "--workdir", str(workdir), "--train-only", *arms]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_ordinary_long_answers(tmp_path, tiny, capsys):
    which = CHANGES["no options"] | CHANGES["all long"] | CHANGES["one stage"]
    workdir = trained_here(tmp_path, tiny, capsys, which)
    summary, html = results(workdir)
    told = summary["default_verdicts"]
    assert (told["trained"], told["known"], told["long"]) == (8, 0, 8)
    assert "any of the 8 trained rows stayed unlearned is not known by default at the end" in html
    assert "8 more than 16 tokens and no options" in html


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_every_command_where_one_thing_is_absent(tmp_path, tiny, tuned, capsys, name):
    workdir = trained_here(tmp_path, tiny, capsys, CHANGES[name])
    verdict = results(workdir)[0]["report"]["verdict"]["default"]
    if name in ("nothing unlearned", "nothing learned"):
        assert verdict["unlearned"] == (0 if name == "nothing unlearned" else verdict["n"])
    other_commands(workdir, tmp_path, capsys)
    tuned_elsewhere(tmp_path, tiny, tuned, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("names", pairs(), ids=" and ".join)
def test_results_where_two_things_are_absent(tmp_path, tiny, tuned, capsys, monkeypatch, names):
    # Drawing takes longer than all else here; the runs above are drawn.
    monkeypatch.setattr(page, "svg", lambda chart, name: "<svg/>")
    which = {key: value for name in names for key, value in CHANGES[name].items()}
    trained_here(tmp_path, tiny, capsys, which)
    tuned_elsewhere(tmp_path, tiny, tuned, capsys)
