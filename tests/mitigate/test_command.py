"""`ilp mitigate` for real: arms as processes, their outcome, and what a killed one leaves."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ilp_jax import cli
from ilp_jax.stats.remedies import REMEDIES_SCHEMA
from ilp_jax.stats.schema import CAUSES

ROOT = Path(__file__).parents[2]
ARMS = "--config.mitigate.arms=none,randomised,diagnosed,oracle"
OF_WORLD = (
    "--config.mitigate.method=rules",
    "--config.mitigate.pages_rate=0.01",
)


@pytest.fixture(scope="module")
def planted(planted_run, tmp_path_factory):
    """A copy of the small planted study, to be changed."""
    folder = tmp_path_factory.mktemp("mitigate") / "run"
    shutil.copytree(planted_run, folder)
    return folder


@pytest.fixture(scope="module")
def mitigated(planted, ilp):
    done = ilp("mitigate", "--workdir", planted, "--jobs", "2", ARMS, *OF_WORLD)
    assert done.returncode == 0, done.stderr
    (planted / "stdout").write_text(done.stdout)
    return planted


def test_every_trained_row_has_an_outcome_in_every_arm(mitigated):
    rows = pl.read_parquet(mitigated / "remedies.parquet")
    assert rows.columns == REMEDIES_SCHEMA.names
    plan = pl.read_parquet(mitigated / "plan.parquet")
    trained = plan["example_id"].unique().sort().to_list()
    arms = ["diagnosed", "none", "oracle", "randomised"]
    assert sorted(rows["arm"].unique()) == arms
    for (_,), own in rows.filter(pl.col("role") == "train").group_by("arm"):
        assert own["example_id"].sort().to_list() == trained
    assert rows["steps"].n_unique() == 1
    planted = rows.filter(pl.col("cause").is_in(CAUSES))
    assert planted["p_before_paraphrase"].null_count() < len(planted)
    assert (rows["p_after"].is_between(0, 1)).all()


def test_what_was_learned_before_is_what_the_diagnosis_said(mitigated):
    rows = pl.read_parquet(mitigated / "remedies.parquet").filter(
        pl.col("arm") == "none", pl.col("role") == "train"
    )
    told = pl.read_parquet(mitigated / "diagnosis.parquet").filter(
        pl.col("point") == "final", pl.col("detector") == "exact_law", pl.col("method") == "rules"
    )
    both = rows.join(told.select("example_id", "unlearned"), on="example_id")
    assert len(both) == len(rows) and (both["learned_before"] != both["unlearned"]).all()
    assert (rows["cause"].is_null() == rows["learned_before"]).all()


def test_an_arm_is_a_run_of_its_own(mitigated):
    folder = mitigated / "arms" / "randomised" / "1000"
    arm = json.loads((folder / "arm.json").read_text())
    examples = pl.read_parquet(folder / "examples.parquet")
    assert examples.filter(pl.col("role") == "document").height == arm["pages"] > 0
    stats = pl.concat(map(pl.read_parquet, (folder / "stats").glob("*.parquet")))
    assert stats["step"].max() == arm["steps"] and np.isfinite(arm["general_loss"])
    assert stats.filter(pl.col("kind") == "probe").is_empty()
    assert not (folder / "checkpoints" / "state").exists()
    config = json.loads((folder / "run.json").read_text())["config"]
    assert config["seed"] == arm["seed"] == 1000
    # Rows dealt the remedy of insufficient training were visited more often than in the run.
    more = [int(one) for one, remedy in arm["remedy"].items() if remedy == "insufficient_training"]
    more = [one for one in more if one in arm["treated"]]
    visits = stats.filter(pl.col("example_id").is_in(more)).height
    plan = pl.read_parquet(mitigated / "plan.parquet").filter(pl.col("example_id").is_in(more))
    assert not more or visits > plan["copies"].sum()


def test_the_outcome_is_told_and_stands_in_the_report(mitigated):
    told = (mitigated / "stdout").read_text()
    assert "Treated by diagnosed cause" in told and "oracle" in told
    found = json.loads((mitigated / "summary.json").read_text())["remedies"]
    assert {one["arm"] for one in found["arms"]} >= {"none", "diagnosed"} and found["planted"]
    assert cli.main(["report", "--workdir", str(mitigated)]) == 0
    page = (mitigated / "report.html").read_text()
    assert 'id="remedies"' in page and page.index("Treated by diagnosed") < page.index("<nav")


def test_every_unlearned_row_has_an_action(mitigated):
    rows = [json.loads(line) for line in (mitigated / "actions.jsonl").read_text().splitlines()]
    outcome = pl.read_parquet(mitigated / "remedies.parquet").filter(pl.col("arm") == "diagnosed")
    unlearned = outcome.filter(~pl.col("learned_before"), pl.col("role") == "train")
    assert {row["example_id"] for row in rows} == set(unlearned["example_id"])
    deleted = {one for row in rows for one in row["delete"]}
    deleted |= {row["example_id"] for row in rows if row["remedy"] == "delete"}
    assert deleted == set(outcome.filter("deleted")["example_id"])
    for row in rows:
        assert row["action"] and (row["remedy"] is None) == ("look at it" in row["action"])
        gain = row["expected_gain"]
        assert gain is None or -1 <= gain["value"] <= 1 and gain["n"] > 0


@pytest.mark.slow
def test_the_changed_training_set_is_one_that_can_be_trained(mitigated, ilp, tmp_path):
    from ilp_jax.data import jsonl

    done = ilp("mitigate", "--workdir", mitigated, *OF_WORLD, "--apply", "--out", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    found = jsonl.load(tmp_path / "new" / "train.jsonl")
    plan = pl.read_parquet(mitigated / "plan.parquet")
    rows = pl.read_parquet(mitigated / "remedies.parquet").filter(pl.col("arm") == "diagnosed")
    kept = plan["example_id"].n_unique() - rows["deleted"].sum()
    assert len({one.source_key for one in found.examples}) == kept
    assert set(found.stages) == {1, 2, 3}
    assert all(int(one.meta["copies"]) >= 1 for one in found.examples)
    texts = (tmp_path / "new" / "documents.jsonl").read_text().splitlines()
    assert all(set(json.loads(line)) == {"text", "for"} for line in texts)
    again = ilp("mitigate", "--workdir", mitigated, "--apply", "--out", tmp_path / "new")
    assert again.returncode == 2 and "is in use" in again.stderr
    without = ilp("mitigate", "--workdir", mitigated, "--apply")
    assert without.returncode == 2 and "--apply needs --out" in without.stderr


def test_without_the_truth_all_arms_but_the_oracle_are_the_same(mitigated, capsys, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(mitigated, folder)
    (folder / "truth.parquet").unlink()
    words = ("--workdir", str(folder), ARMS.removesuffix(",oracle"), *OF_WORLD)
    assert cli.main(["mitigate", *words]) == 0
    told = capsys.readouterr().err
    assert "train " not in told and "arms" not in told  # the same plans: no training
    before, after = (
        pl.read_parquet(one / "remedies.parquet").filter(pl.col("arm") != "oracle")
        for one in (mitigated, folder)
    )
    assert after.equals(before)


@pytest.mark.slow
def test_trained_arms_are_not_trained_again(mitigated, ilp):
    before = pl.read_parquet(mitigated / "remedies.parquet")
    done = ilp("mitigate", "--workdir", mitigated, ARMS, *OF_WORLD)
    assert done.returncode == 0 and "arms" not in done.stderr
    assert pl.read_parquet(mitigated / "remedies.parquet").equals(before)


@pytest.mark.slow
def test_another_plan_is_not_mixed_with_what_is_trained(mitigated, ilp):
    before = (mitigated / "remedies.parquet").read_bytes()
    done = ilp("mitigate", "--workdir", mitigated, ARMS, *OF_WORLD, "--config.mitigate.visits=9")
    assert done.returncode == 1 and "holds a run of another config" in done.stderr
    assert (mitigated / "remedies.parquet").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diagnosed", "buckets", "resample", "progressive"])
def test_a_killed_arm_goes_on_and_ends_the_same(name, mitigated, ilp, tmp_path):
    arms = f"--config.mitigate.arms={name}"
    folders = [tmp_path / "killed", tmp_path / "whole"]
    for folder in folders:
        shutil.copytree(mitigated, folder)
        shutil.rmtree(folder / "arms")
    options = (arms, "--config.mitigate.buckets_every=2", *OF_WORLD)
    words = ("mitigate", "--workdir", folders[0], "--train-only", *options)
    for function, n in (("ilp_jax.train.loop:record", 12), ("ilp_jax.detect.point:ask", 1)):
        killed = ilp(*words, killed_at=(function, n, ""))
        assert killed.returncode == -9, killed.stderr
    for folder in folders:
        done = ilp("mitigate", "--workdir", folder, *options)
        assert done.returncode == 0, done.stderr
    killed, whole = (pl.read_parquet(folder / "remedies.parquet") for folder in folders)
    assert killed.equals(whole) and set(killed["arm"]) == {name}


@pytest.mark.slow
def test_other_remedies_of_groups_and_of_the_whole(mitigated, ilp, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(mitigated, folder)
    names = [
        "sham",
        "masked",
        "relabel",
        "buckets",
        "weighted",
        "resample",
        "shuffle",
        "epochs",
        "oversample_all",
    ]
    arms = f"--config.mitigate.arms={','.join(names)}"
    done = ilp("mitigate", "--workdir", folder, arms, *OF_WORLD)
    assert done.returncode == 0, done.stderr
    rows = pl.read_parquet(folder / "remedies.parquet")
    assert sorted(rows["arm"].unique()) == sorted(names)
    steps = rows.group_by("arm").agg(pl.col("steps").first())["steps"]
    assert steps.max() - steps.min() <= 10  # a part of a stage ends with a batch of its own
    plans = {
        name: pl.read_parquet(folder / "arms" / name / "1000" / "plan.parquet") for name in names
    }
    base = pl.read_parquet(folder / "plan.parquet")
    ids = set(base["example_id"])
    for name in ("resample", "shuffle", "buckets", "relabel"):
        assert ids <= set(plans[name]["example_id"])
    arm = json.loads((folder / "arms" / "masked" / "1000" / "arm.json").read_text())
    assert arm["documents_of_rows"] and not arm["documents_with_answer"]


@pytest.mark.slow
def test_weight_and_pull_hold_the_general_text_where_it_was(mitigated, ilp, tmp_path):
    losses = {}
    for decay in ("0.0001", "10"):
        folder = tmp_path / decay
        shutil.copytree(mitigated, folder)
        strength = f"--config.mitigate.anchor_decay={decay}"
        arms = "--config.mitigate.arms=weighted"
        done = ilp("mitigate", "--workdir", folder, arms, *OF_WORLD, strength)
        assert done.returncode == 0, done.stderr
        about = json.loads((folder / "arms" / "weighted" / "1000" / "arm.json").read_text())
        losses[decay] = about["general_loss"]
    assert losses["10"] < losses["0.0001"]


@pytest.mark.slow
def test_stages_go_on_while_their_loss_falls(mitigated, ilp, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(mitigated, folder)
    arms = "--config.mitigate.arms=none,progressive"
    most = "--config.mitigate.further_epochs=2"
    done = ilp("mitigate", "--workdir", folder, arms, *OF_WORLD, most)
    assert done.returncode == 0, done.stderr
    own = folder / "arms" / "progressive" / "1000"
    losses = json.loads((own / "parts.json").read_text())["losses"]
    assert len(losses) == 3 and all(1 <= len(one) <= 3 for one in losses)
    stats = pl.concat(map(pl.read_parquet, (own / "stats").glob("*.parquet")))
    plan = pl.read_parquet(folder / "plan.parquet")
    epochs = json.loads((folder / "run.json").read_text())["config"]["stages"]
    visits = 0
    for one, name in zip(losses, epochs, strict=True):
        stage = plan.filter(pl.col("stage") == list(epochs).index(name) + 1)
        visits += stage["copies"].sum() * (epochs[name]["epochs"] + len(one) - 1)
    assert len(stats) == visits


@pytest.mark.slow
def test_a_run_of_real_rows_gets_paraphrases(finished_run, ilp, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    arms = "--config.mitigate.arms=none,diagnosed"
    done = ilp("mitigate", "--workdir", folder, arms, "--config.mitigate.pages=0.5")
    assert done.returncode == 0, done.stderr
    rows = pl.read_parquet(folder / "remedies.parquet").filter(pl.col("role") == "train")
    assert rows["learned_before_paraphrase"].null_count() == 0
    assert not rows["is_sham"].any()


@pytest.mark.slow
def test_adapters_are_mended_from_the_base_on(planted_arguments, ilp, tmp_path):
    """Arms of a run that trains adapters train them too, from none, and may be pulled to none."""
    folder = tmp_path / "run"
    done = ilp("run", *planted_arguments(folder), "--config.lora.rank=2")
    assert done.returncode == 0, done.stderr
    losses = {}
    for decay in ("0.0001", "10"):
        own = tmp_path / decay
        shutil.copytree(folder, own)
        arms = "--config.mitigate.arms=none,diagnosed,buckets,weighted"
        strength = f"--config.mitigate.anchor_decay={decay}"
        done = ilp("mitigate", "--workdir", own, arms, *OF_WORLD, strength)
        assert done.returncode == 0, done.stderr
        rows = pl.read_parquet(own / "remedies.parquet")
        assert rows["arm"].n_unique() == 4 and rows["steps"].n_unique() == 1
        (arm,) = (own / "arms" / "weighted").iterdir()
        losses[decay] = json.loads((arm / "arm.json").read_text())["general_loss"]
        record = json.loads((arm / "run.json").read_text())
        run = json.loads((own / "run.json").read_text())
        assert record["weights_hash"] == run["weights_hash"]
        assert record["config"]["lora"]["rank"] == 2
    assert losses["10"] < losses["0.0001"]


@pytest.mark.slow
def test_oracle_needs_a_planted_study(finished_run, ilp, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    done = ilp("mitigate", "--workdir", folder, "--config.mitigate.arms=oracle")
    assert done.returncode == 2 and "is no planted study" in done.stderr


def test_a_run_that_is_not_diagnosed_is_refused(tiny_arguments, refused, tmp_path):
    assert "is not finished there" in refused("mitigate", *tiny_arguments(tmp_path / "run"))
