"""Several runs in one report."""

import json
import random

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from ilp_jax import cli
from ilp_jax.analysis.report import compare, phase
from ilp_jax.analysis.report.compare import comparison, overlap, run_names
from ilp_jax.analysis.report.load import load
from ilp_jax.errors import UserError


def with_verdicts(run, verdicts):
    ids = run.plan["example_id"].to_list()
    rows = pl.DataFrame(
        {"example_id": ids, "point": "final", "detector": "exact_match", "unlearned": verdicts},
        schema=run.verdicts.schema,
    )
    return phase.load(run.workdir).__class__(**{**vars(run), "verdicts": rows})


@pytest.mark.parametrize("seed", range(10))
def test_overlap_against_sets(make_run, seed):
    draw = random.Random(seed)
    run = load(make_run(f"run{seed}"))
    drawn = [[draw.choice([True, False, None]) for _ in range(12)] for _ in range(2)]
    found = overlap(*(with_verdicts(run, verdicts) for verdicts in drawn), "exact_match")
    known = [i for i in range(12) if None not in (drawn[0][i], drawn[1][i])]
    a, b = ({i for i in known if verdicts[i]} for verdicts in drawn)
    assert found["n"] == len(known) and found["unlearned"] == [len(a), len(b)]
    assert (found["both"], found["either"]) == (len(a & b), len(a | b))
    if a | b:
        assert found["jaccard"] == pytest.approx(len(a & b) / len(a | b))
        expected = len(a) * len(b) / len(known)
        assert found["by_chance"] == pytest.approx(expected / (len(a) + len(b) - expected))
    else:
        assert found["jaccard"] is None
    verdicts = np.array([[drawn[k][i] for i in known] for k in range(2)])
    if len(np.unique(verdicts)) == 2:
        assert found["kappa"] == pytest.approx(cohen_kappa_score(*verdicts))
        low, high = found["kappa_interval"]
        assert low <= found["kappa"] <= high


def test_comparison(make_run):
    runs = [load(make_run("a")), load(make_run("b", seed=3)), load(make_run("c", n=4))]
    found = comparison(runs, run_names(runs))
    assert [run["name"] for run in found["runs"]] == ["A: a", "B: b", "C: c"]
    assert found["config"] == [{"field": "seed", "values": [0, 3, 0]}]
    pair = next(one for one in found["overlap"] if one["detector"] == "exact_match")
    assert pair["runs"] == ["A: a", "B: b"] and pair["jaccard"] == 1.0 and pair["n"] == 12
    assert len(found["overlap"]) == 3 * 4


def test_defaults_say_nothing_of_a_training_elsewhere(make_run):
    """Whatever the fields of a training are: a run that used none of them claims none."""
    runs = [load(make_run("here")), load(make_run("there", tuned="/elsewhere"))]
    assert runs[1].config["train"]["batch_size"]
    found = comparison(runs, run_names(runs))
    told = {line["field"]: line["values"] for line in found["config"]}
    assert told["model.tuned"] == ["", "/elsewhere"]
    for field in ("stages.first.learning_rate", "stages.first.epochs", "train.batch_size"):
        assert told[field][0] is not None and told[field][1] is None
    assert "stages.first.source" not in told


def test_runs_without_common_rows(make_run):
    one, other = load(make_run("a")), load(make_run("b"))
    moved = other.verdicts.with_columns(pl.col("example_id") + 1000)
    other = type(other)(**{**vars(other), "verdicts": moved})
    found = overlap(one, other, "default")
    assert found["n"] == 0 and found["jaccard"] is None


def test_one_file_for_several_runs(make_run, limits, data_of, tmp_path):
    folders = [make_run("a", told=True), make_run("b", seed=1, source="other")]
    before = {path: path.read_bytes() for folder in folders for path in folder.rglob("*.json")}
    out = tmp_path / "out" / "both.html"
    assert compare(folders, out, {**limits, "max_rows": 6}) == out
    html = out.read_text()
    assert html.count('class="run-name"') > 4 and "A: a" in html and "B: b" in html
    data = data_of(html)
    assert [run["name"] for run in data["runs"]] == ["A: a", "B: b"]
    assert [len(run["rows"]) for run in data["runs"]] == [3, 3]
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["overlap"][0]["runs"] == ["A: a", "B: b"]
    # The source names the first stage, so that its fields differ as well.
    assert figures["regimes"]["fields"][0] == "seed" and 'id="regimes"' in html
    assert figures["regimes"]["measures"] == [{"kind": "share", "of": "all rows"}]
    assert figures["regimes"]["along"][0]["runs"] == ["A: a", "B: b"]
    assert before == {path: path.read_bytes() for path in before}
    assert not [path for folder in folders for path in folder.rglob("report.html")]


def test_on_the_command_line(make_run, tmp_path, capsys):
    folders = [make_run("a"), make_run("b")]
    words = ["--config", _config(tmp_path), "--config.report.max_rows=2"]
    out = tmp_path / "both.html"
    for folder in folders:
        words += ["--workdir", str(folder)]
    assert cli.main(["report", *words, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"Report: {out}\n" and out.exists()
    assert cli.main(["report", *words[:2], "--workdir", *words[-3::2], "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"Report: {out}\n"
    assert cli.main(["report", *words]) == 2
    assert "needs --out" in capsys.readouterr().err
    assert cli.main(["report", *words, "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert cli.main(["report", *words, *words[-2:], "--out", str(out)]) == 2
    assert "given twice" in capsys.readouterr().err


def _config(folder):
    path = folder / "own.py"
    path.write_text(
        "from ilp_jax.config import default_config, default_stage\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.stages['one'] = default_stage()\n"
        "    config.stages.one.path = 'rows.jsonl'\n"
        "    config.sequence = ('one',)\n"
        "    return config\n"
    )
    return str(path)


def test_a_folder_that_is_no_run(make_run, limits, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not the folder of a run"):
        compare([make_run("a"), tmp_path / "empty"], tmp_path / "x.html", limits)
