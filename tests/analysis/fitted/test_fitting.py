"""Fitting on finished worlds: which are taken, what is left out, that it repeats."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score

from ilp_jax.analysis.fitted import fit
from ilp_jax.analysis.fitted.__main__ import main
from ilp_jax.analysis.fitted.figures import decide, figures
from ilp_jax.analysis.fitted.inputs import BLIND, INPUTS
from ilp_jax.analysis.fitted.worlds import read_worlds
from ilp_jax.errors import UserError
from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED


def test_rows_to_fit_on(worlds):
    rows = read_worlds(worlds)
    assert rows["world"].unique().to_list() == [0, 1, 2]
    # Two of three rows are unlearned; filler says nothing.
    assert len(rows) == 3 * 7 * 20
    assert set(rows["planted"]) == {*CAUSES, "fault", "control"}
    none = rows["planted"].is_in(["fault", "control"])
    assert set(rows.filter(none)["label"]) == {UNATTRIBUTED}
    assert rows.filter(~none).select(pl.col("label") == pl.col("planted")).to_series().all()
    assert read_worlds(worlds[::-1]).equals(rows)


@pytest.mark.parametrize(
    ("world", "what"),
    [(20, "world 20: it is for testing"), (-1, "world -1"), (None, "not the run")],
)
def test_worlds_that_are_not_for_fitting_are_refused(world, what, worlds, write_world, tmp_path):
    other = write_world(tmp_path / "w", world)
    with pytest.raises(UserError, match=what):
        read_worlds([*worlds, other])


def test_the_same_world_twice_or_without_verdicts_is_refused(worlds, capsys):
    with pytest.raises(UserError, match="world 0 of family llama, seed 0"):
        read_worlds([worlds[0], worlds[1], worlds[0]])
    with pytest.raises(UserError, match="unlearned by choice at final"):
        read_worlds(worlds, "choice")
    assert main(["--workdirs", str(worlds[0]), str(worlds[0])]) == 2
    assert main(["--workdirs", str(worlds[0]), "--kind", "linear"]) == 2
    assert "fit on two or more" in capsys.readouterr().err


def test_files_repeat_and_say_what_they_rest_on(worlds, fitted, tmp_path, capsys):
    arguments = ["--workdirs", *map(str, worlds[::-1]), "--kind", "linear"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert "macro-F1" in capsys.readouterr().out
    for method in INPUTS:
        text = (tmp_path / f"{method}.json").read_text()
        assert text == (fitted / f"{method}.json").read_text()
        parts = json.loads(text)
        about = parts["about"]
        assert about["worlds"] == [0, 1, 2] and about["families"] == ["llama"]
        assert about["rows"] == dict.fromkeys(CAUSES, 60) | {UNATTRIBUTED: 120}
        assert about["scikit-learn"] and 0 < about["left_out"]["macro_f1"] < 1
        assert tuple(parts["scale"]["names"]) == INPUTS[method]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["boosted", "forest"])
def test_trees_repeat(kind, worlds):
    rows = read_worlds(worlds[:2])
    one, two = (
        fit.fit(rows, rows["label"], rows["world"], INPUTS[BLIND][:8], kind, {}) for _ in range(2)
    )
    assert one.to_json() == two.to_json()


def test_no_world_is_judged_by_what_was_fitted_on_it(worlds):
    rows = read_worlds(worlds)
    labels = rows["label"].to_list()
    told = fit.left_out(rows, labels, rows["world"], INPUTS[BLIND], "linear")
    # Wrong labels in a world change what is said of others, never of itself.
    moved = labels[7:] + labels[:7]
    spoilt = [
        m if world == 1 else one for m, one, world in zip(moved, labels, rows["world"], strict=True)
    ]
    other = fit.left_out(rows, spoilt, rows["world"], INPUTS[BLIND], "linear")
    mine = (rows["world"] == 1).to_numpy()
    np.testing.assert_array_equal(told[mine], other[mine])
    assert np.abs(told[~mine] - other[~mine]).max() > 0.01
    # So with the temperature of each.
    one = fit.calibrated(told, labels, rows["world"])
    two = fit.calibrated(told, spoilt, rows["world"])
    np.testing.assert_array_equal(one[mine], two[mine])
    assert (one[~mine] != two[~mine]).any()


def test_classes_that_are_left_out_are_judged_all_the_same(worlds):
    rows = read_worlds(worlds)
    told = fit.left_out(rows, rows["label"], rows["world"], INPUTS[BLIND], "linear", CAUSES)
    assert told.shape == (len(rows), 5)
    np.testing.assert_allclose(told.sum(1), 1)


def test_figures_by_hand():
    classes = (*CAUSES, UNATTRIBUTED)
    p = np.full((8, 6), 0.02)
    likely = [0, 0, 1, 2, 3, 4, 5, 2]
    p[np.arange(8), likely] = 0.9
    p[4] = [0.2, 0.2, 0.2, 0.3, 0.05, 0.05]  # forgetting, below the least probability
    planted = [CAUSES[i] for i in (0, 1, 1, 2, 3, 4)] + ["fault", "control"]
    told = [CAUSES[i] for i in (0, 0, 1, 2)] + [UNATTRIBUTED, CAUSES[4], UNATTRIBUTED, CAUSES[2]]
    assert decide(p, classes, 0.4).tolist() == told
    found = figures(p, classes, planted, 0.4)
    assert found["n"] == 6 and found["wrongly_unattributed"] == pytest.approx(1 / 6)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1 + 0 + 1) / 5)
    assert found["macro_f1"] == pytest.approx(
        f1_score(planted[:6], told[:6], labels=CAUSES, average="macro", zero_division=0)
    )
    assert list(found["recall"].values()) == [1, 0.5, 1, 0, 1]
    assert (found["fault_unattributed"], found["control_unattributed"]) == (1, 0)
    assert (found["n_fault"], found["n_control"]) == (1, 1)
    assert decide(p[:, :5], CAUSES, 0.0).tolist()[4] == CAUSES[3]
