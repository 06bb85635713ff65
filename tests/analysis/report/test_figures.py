"""Figures against plain counting."""

import json

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest

from ilp_jax.analysis.report import report
from ilp_jax.analysis.report.figures import causes, fates, figures
from ilp_jax.analysis.report.load import load
from ilp_jax.errors import UserError
from ilp_jax.stats.reader import read_diagnosis, write_diagnosis
from ilp_jax.stats.schema import CAUSES


@pytest.fixture
def run(make_run):
    return load(make_run(n=7, told=True))


def test_fates_by_construction(run):
    wanted = {0: "learned", 1: "lost", 2: "never"}
    for place, row in enumerate(fates(run).to_dicts()):
        fate = wanted[place % 3]
        assert row["fate"] == ("never" if fate == "lost" and place >= 7 else fate)


def test_verdict_and_averages(run):
    found = figures(run)
    n = sum(i % 3 != 0 for i in range(14))
    low, high = binomtest(n, 14).proportion_ci(method="wilson")
    verdict = found["verdict"]
    assert verdict["default"] == {
        "n": 14,
        "unlearned": n,
        "share": n / 14,
        "interval": [float(low), float(high)],
    }
    assert verdict["point"] == "final" and verdict["decided_by"] == {"exact_match": 14}
    assert verdict["without_planted"] is None
    assert list(verdict["by_detector"]) == ["exact_match", "exact_law", "choice"]
    assert found["averages"]["choice_accuracy"]["right"] == 14
    stats = pl.read_parquet(f"{run.workdir}/stats/*.parquet").with_columns(
        loss=pl.col("loss_sum") / 3
    )
    ends = stats.filter(pl.col("kind") == "probe", pl.col("step") == 12)
    assert found["averages"]["probe_loss"]["mean"] == pytest.approx(ends["loss"].mean(), rel=1e-6)
    assert found["averages"]["token_accuracy"]["mean"] == pytest.approx(
        ends["n_correct"].sum() / 42
    )
    for one in found["averages"]["train_loss"]:
        last = stats.filter(
            pl.col("kind") == "train", pl.col("stage") == one["stage"], pl.col("epoch") == 2
        )
        assert one["n"] == 7 and one["loss"] == pytest.approx(last["loss"].mean(), rel=1e-6)
    assert found["stage_ends"] == {"1": 6, "2": 12}


@pytest.mark.parametrize("measure", ["loss", "grad_norm"])
def test_trajectories_are_quartiles_of_like_rows(run, measure):
    found = [one for one in figures(run)["trajectories"] if one["measure"] == measure]
    fate = dict(fates(run).iter_rows())
    stats = pl.read_parquet(f"{run.workdir}/stats/*.parquet").to_dicts()
    seen = {}
    for row in stats:
        stage = 1 if row["example_id"] % 2**60 < 7 else 2
        value = row["loss_sum"] / row["n_tokens"] if measure == "loss" else row["grad_norm"]
        if row["kind"] == "probe":
            step = row["step"]
        elif measure == "loss" or row["stage"] != stage:
            continue
        else:
            of_epoch = [
                other["step"]
                for other in stats
                if other["kind"] == "train"
                and (other["stage"], other["epoch"]) == (row["stage"], row["epoch"])
            ]
            step = float(np.median(of_epoch))
        seen.setdefault((stage, fate[row["example_id"]], step), []).append(value)
    assert {(one["of_stage"], one["fate"], one["step"]) for one in found} == set(seen)
    for one in found:
        values = np.array(seen[one["of_stage"], one["fate"], one["step"]], float)
        assert one["n"] == len(values)
        quartiles = np.quantile(values, [0.25, 0.5, 0.75])
        np.testing.assert_allclose([one["low"], one["median"], one["high"]], quartiles, rtol=1e-6)


def test_of_many_rows_some_are_followed(run, monkeypatch):
    assert figures(run)["trajectories_of"] is None
    monkeypatch.setattr("ilp_jax.analysis.report.figures.MOST_ROWS", 5)
    found = figures(run)
    assert found["trajectories_of"] == 5 < sum(found["fates"].values())
    at_last = [
        one
        for one in found["trajectories"]
        if one["measure"] == "loss"
        and one["step"] == max(x["step"] for x in found["trajectories"] if x["measure"] == "loss")
    ]
    assert 0 < sum(one["n"] for one in at_last) <= 5


def test_causes_add_up(run):
    cells = causes(run)
    told = (
        read_diagnosis(run.workdir)
        .filter(
            pl.col("method") == "rules", pl.col("point") == "final", pl.col("cause").is_not_null()
        )
        .filter(pl.col("detector") == "exact_match")
    )
    groups = {(cell["stage"], cell["source"]) for cell in cells}
    assert groups == {
        *((None, source) for source in (None, "first", "second")),
        *((1, source) for source in (None, "first")),
        *((2, source) for source in (None, "second")),
    }
    for group in groups:
        of = [cell for cell in cells if (cell["stage"], cell["source"]) == group]
        assert [cell["cause"] for cell in of] == [*CAUSES, "unattributed"]
        assert sum(cell["count"] for cell in of) == of[0]["n"]
    whole = {c["cause"]: c["count"] for c in cells if (c["stage"], c["source"]) == (None, None)}
    counted = dict(told["cause"].value_counts().iter_rows())
    assert whole == {cause: counted.get(cause, 0) for cause in whole}


def test_a_cause_that_no_row_was_asked_about_has_no_share(make_run, limits):
    folder = make_run(told=True)
    rows = read_diagnosis(folder)
    lost = pl.col("cause") == "left_side_forgetting"
    rows = rows.with_columns(
        pl.when(~lost.fill_null(False)).then("cause"),
        pl.lit(None, pl.Boolean).alias("flag_left_side_forgetting"),
    )
    write_diagnosis(folder, rows)
    found = {cell["cause"] for cell in causes(load(folder))}
    assert found == {*CAUSES, "unattributed"} - {"left_side_forgetting"}
    assert "not measured" in report(folder, limits).read_text()


def test_planted_rows_are_told_apart(make_run):
    verdict = figures(load(make_run(source="planted_twin")))["verdict"]
    assert verdict["default"]["n"] == 12 and verdict["without_planted"]["n"] == 6


def test_summary_keeps_what_it_had_and_gets_the_figures(make_run, limits):
    folder = make_run()
    before = json.loads((folder / "summary.json").read_text())
    report(folder, limits)
    after = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    kept = {key: value for key, value in after.items() if key not in ("report", "checksum")}
    assert kept == {key: value for key, value in before.items() if key != "checksum"}
    assert after["report"] == json.loads(json.dumps(figures(load(folder))))
    again = (folder / "summary.json").read_bytes()
    report(folder, limits)
    assert (folder / "summary.json").read_bytes() == again


@pytest.mark.parametrize("gone", ["diagnosis.parquet", "summary.json"])
def test_needs_a_diagnosis(make_run, limits, gone):
    folder = make_run()
    (folder / gone).unlink()
    with pytest.raises(UserError, match="ilp diagnose"):
        report(folder, limits)


def test_a_run_without_training_has_a_report(make_run, limits):
    folder = make_run(tuned="DIR", told=True)
    html = report(folder, limits).read_text()
    assert "No loss was recorded over training" in html and "it changes what stays" not in html
    assert "8 of 12 trained rows (67%" in html
    found = figures(load(folder))
    assert found["fates"] == {"learned": 4, "unlearned": 8} and found["trajectories"] == []
    assert found["averages"]["train_loss"] == [] and found["averages"]["probe_loss"] is None
