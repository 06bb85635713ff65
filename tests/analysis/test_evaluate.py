"""``evaluate``: what it writes, prints and refuses, for one run and for several."""

import json

import polars as pl

from ilp_jax import cli, files
from ilp_jax.analysis import evaluate as evaluation
from ilp_jax.analysis import summary_file
from ilp_jax.stats import reader
from ilp_jax.stats.schema import CAUSES
from ilp_jax.stats.truth import read_truth, write_truth

KEYS = {
    "agreement",
    "agreement_belief",
    "planted_shares",
    "planted_shares_belief",
    "evaluation",
}
FEW = 50


def test_one_run_gets_its_figures_beside_what_it_has(planted_run):
    run = planted_run()
    before = {path: path.read_bytes() for path in run.rglob("*.parquet")}
    found = evaluation.evaluate_run(run, FEW)
    summary = summary_file.read(run)
    assert set(found) == KEYS and set(summary) == KEYS | {"shares", "kept"}
    assert summary["kept"] == "as it was"
    assert json.loads(files.to_json(found)) == {key: summary[key] for key in KEYS}
    model = summary["agreement"]["sampled"]["model"]
    low, high = model["intervals"]["macro_f1"]
    assert 0.6 < low < model["macro_f1"] < high < 1
    assert model["macro_f1"] > summary["agreement"]["sampled"]["rules"]["macro_f1"]
    assert summary["evaluation"] | {"groups": 0, "belief": 0} == {
        "point": "final", "runs": 1, "worlds": 1, "groups": 0,
        "resamples": FEW, "seed": 0, "belief": 0,
    }  # fmt: skip
    assert {path: path.read_bytes() for path in run.rglob("*.parquet")} == before
    again = (run / "summary.json").read_bytes()
    evaluation.evaluate_run(run, FEW)
    assert (run / "summary.json").read_bytes() == again


def test_the_command_prints_both_labels_and_every_method(planted_run, capsys):
    run = planted_run()
    assert cli.main(["evaluate", "--workdir", str(run)]) == 0
    out = capsys.readouterr().out
    for words in (
        "detector sampled",
        "as planted",
        "by the base's belief",
        "macro-F1, majority",
        "recall of left side forgetting, model",
        "fault left unattributed, model",
        "calibration error, model",
        "1000 bootstrap resamples of the groups",
    ):
        assert words in out, words
    assert "worst" not in out
    model = files.read_json(run / "summary.json")["agreement"]["sampled"]["model"]
    assert f"{model['macro_f1']:.2f}".removeprefix("0") in out


def test_several_runs_are_pooled_and_the_worst_is_named(planted_run, tmp_path, capsys):
    runs = [
        planted_run(f"r{seed}", seed=seed, world=20 + seed // 2, family=family)
        for seed, family in enumerate(("llama", "qwen2", "llama"))
    ]
    kept = [(run / "summary.json").read_bytes() for run in runs]
    out = tmp_path / "out" / "scores.json"
    words = [str(run) for run in runs]
    # Both forms of giving several.
    assert (
        cli.main(["evaluate", "--workdir", *words[:2], "--workdir", words[2], "--out", str(out)])
        == 0
    )
    printed = capsys.readouterr().out
    assert [(run / "summary.json").read_bytes() for run in runs] == kept
    found = files.read_json(out)
    names = ["llama 20", "qwen2 20", "llama 21"]
    assert [one["name"] for one in found["runs"]] == names
    assert [(one["world"], one["family"]) for one in found["cells"]] == [
        (20, "llama"), (20, "qwen2"), (21, "llama"),
    ]  # fmt: skip
    assert found["pooled"]["evaluation"]["worlds"] == 2
    assert "2 worlds, then the groups" in printed and "worst run" in printed
    for key in ("agreement", "agreement_belief"):
        cells = {one["name"]: one[key]["sampled"]["model"] for one in found["cells"]}
        assert found["pooled"][key]["sampled"]["model"]["n"] == sum(
            one["n"] for one in cells.values()
        )
        worst = found["worst"][key]["sampled"]["model"]
        lowest = min(cells, key=lambda name: cells[name]["macro_f1"])
        assert worst["macro_f1"] == {
            "value": cells[lowest]["macro_f1"], "n": cells[lowest]["n"], "cell": lowest,
        }  # fmt: skip
        assert worst["ece"]["value"] == max(one["ece"] for one in cells.values())
        for cause in CAUSES:
            assert worst["recall"][cause]["value"] == min(
                one["recall"][cause] for one in cells.values()
            )
        for group, bound in (("fault", min), ("causes", max), ("control", max)):
            assert worst["unattributed"][group]["value"] == bound(
                one["unattributed"][group]["share"] for one in cells.values()
            )
    shares = {one["planted"]: one for one in found["worst"]["planted_shares"]
              if one["detector"] == "sampled"}  # fmt: skip
    for group, bound in (("control", max), ("fault", min), (CAUSES[3], min)):
        known = [
            one["share"]
            for cell in found["cells"]
            for one in cell["planted_shares"]
            if (one["detector"], one["planted"], one["detail"]) == ("sampled", group, None)
        ]
        assert len(known) == 3 and shares[group]["value"] == bound(known)
    evaluation.evaluate_run(runs[0])
    alone = files.read_json(runs[0] / "summary.json")
    assert {key: found["cells"][0][key] for key in KEYS} == {key: alone[key] for key in KEYS}


def test_runs_of_one_name_are_told_apart(planted_run, tmp_path):
    runs = [planted_run(name, seed=i, n=6) for i, name in enumerate("ab")]
    evaluation.evaluate(runs, tmp_path / "x.json", FEW)
    names = [one["name"] for one in files.read_json(tmp_path / "x.json")["runs"]]
    assert names == [f"llama 0 ({run})" for run in runs]


def test_wrong_input_is_one_line(planted_run, tmp_path, refused):
    run, other = planted_run("run", n=6), planted_run("other", n=6)
    assert "needs --workdir" in refused("evaluate")
    assert "is given twice" in refused("evaluate", "--workdir", run, f"{run}/")
    assert "is a folder" in refused("evaluate", "--workdir", run, "--out", tmp_path)
    assert "there is no such folder" in refused("evaluate", "--workdir", run, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    (other / "diagnosis.parquet").unlink()
    assert "evaluate needs the phase diagnose" in refused("evaluate", "--workdir", run, other)
    (other / "truth.parquet").unlink()
    assert "is no planted study" in refused("evaluate", "--workdir", run, other)
    truth = read_truth(run)
    write_truth(run, truth.with_columns(pl.col("example_id") + 10**9))
    assert "tells nothing of the planted rows" in refused("evaluate", "--workdir", run)
    write_truth(run, truth)
    rows = reader.read_diagnosis(run)
    reader.write_diagnosis(run, rows.filter(pl.col("point") != "final"))
    assert "at the point final" in refused("evaluate", "--workdir", run)
    assert "evaluation" not in files.read_json(run / "summary.json")


def test_runs_of_no_world_are_named_by_their_folders_and_are_worlds_of_their_own(
    planted_run, tmp_path
):
    runs = [planted_run(name, seed=i, n=6, family="") for i, name in enumerate("ab")]
    evaluation.evaluate(runs, tmp_path / "x.json", FEW)
    found = files.read_json(tmp_path / "x.json")
    assert [(one["name"], one["world"]) for one in found["runs"]] == [("a", None), ("b", None)]
    assert found["pooled"]["evaluation"]["worlds"] == 2


def test_a_run_whose_base_was_not_asked_keeps_the_planted_labels(planted_run):
    run = planted_run(belief=False, n=10)
    found = evaluation.evaluate_run(run, FEW)
    assert found["agreement"] == found["agreement_belief"]
    assert found["evaluation"]["belief"] is None
