"""Verdicts of fitted methods."""

import json

import numpy as np
import polars as pl
import pytest

from ilp_jax.analysis import diagnose
from ilp_jax.analysis.cascade import trained_by_then
from ilp_jax.analysis.fitted import method as module
from ilp_jax.analysis.fitted.inputs import BLIND, MODEL, inputs, signal_of
from ilp_jax.errors import UserError
from ilp_jax.fields.diagnose import METHODS
from ilp_jax.stats.schema import CAUSES, DIAGNOSIS_SCHEMA, UNATTRIBUTED


def told(new_world, method=MODEL, **fields):
    found, signals, trained, thresholds, _ = new_world
    rows = module.combine(found, signals, trained, thresholds | fields, method)
    assert rows.columns == DIAGNOSIS_SCHEMA.names
    types = pl.from_arrow(DIAGNOSIS_SCHEMA.empty_table()).schema
    assert dict(rows.schema) == dict(types)
    assert rows.select("example_id", "unlearned").equals(found.select("example_id", "unlearned"))
    return rows


@pytest.mark.parametrize("method", [MODEL, BLIND])
def test_causes_of_a_new_world(new_world, method):
    rows, planted = told(new_world, method), new_world[-1]
    lost = rows["unlearned"].to_numpy()
    of_cause = lost & np.isin(planted, CAUSES)
    right = rows["cause"].to_numpy()[of_cause] == planted[of_cause]
    assert right.mean() > (0.7 if method == MODEL else 0.55)
    assert set(rows.filter("unlearned")["cause"]) <= {*CAUSES, UNATTRIBUTED}
    scores = rows.filter("unlearned").select(pl.sum_horizontal(f"score_{c}" for c in CAUSES))
    assert scores.to_series().is_between(0, 1 + 1e-9).all()


def test_a_row_has_one_flag_its_cause_and_a_text_with_its_numbers(new_world):
    known = inputs(new_world[1])
    for row in told(new_world).to_dicts():
        flags = [cause for cause in CAUSES if row[f"flag_{cause}"]]
        if not row["unlearned"]:
            assert row["cause"] is row["evidence"] is row["runner_up"] is None and flags == []
            assert row["score_base_conflict"] is row["flag_base_conflict"] is None
            continue
        assert flags == [c for c in CAUSES if c == row["cause"]]
        scores = {c: row[f"score_{c}"] for c in CAUSES if c != row["cause"]}
        assert row["runner_up"] == max(scores, key=scores.get)
        likely = max(CAUSES, key=lambda c: row[f"score_{c}"])
        assert row["cause"] in (likely, UNATTRIBUTED)
        assert f"{likely.replace('_', ' ')} {row[f'score_{likely}']:.2f}" in row["evidence"]
        assert "usually" in row["evidence"] and "no test" not in row["evidence"]
    lost = told(new_world).filter(cause="left_side_forgetting")
    one = lost.sort("score_left_side_forgetting").row(-1, named=True)
    value = known.filter(example_id=one["example_id"])["own_drop"][0]
    assert f"own drop {value:.2f} (usually" in one["evidence"]


def test_below_the_least_probability_nothing_is_told(new_world):
    for row in told(new_world, model_probability=0.999).filter("unlearned").to_dicts():
        if row["cause"] == UNATTRIBUTED:
            assert max(row[f"score_{c}"] for c in CAUSES) < 0.999 and row["runner_up"]
            assert not any(row[f"flag_{c}"] for c in CAUSES)
    few = told(new_world, model_probability=0.999)["cause"] == UNATTRIBUTED
    many = told(new_world, model_probability=0.01)["cause"] == UNATTRIBUTED
    assert few.sum() > many.sum()


def test_most_fault_rows_are_left_unattributed(new_world):
    rows, planted = told(new_world), new_world[-1]
    fault = rows.filter(pl.Series(planted == "fault"), pl.col("unlearned"))
    assert (fault["cause"] == UNATTRIBUTED).mean() > 0.5


def test_a_rows_verdict_rests_on_no_other_detector_or_row_of_it(new_world):
    found, signals, trained, thresholds, _ = new_world
    alone = told(new_world)
    both = pl.concat([found, found.with_columns(detector=pl.lit("choice"))])
    rows = module.combine(both, signals, trained, thresholds, MODEL)
    assert rows.filter(detector="sampled").equals(alone)
    other = rows.filter(detector="choice").with_columns(detector=pl.lit("sampled"))
    assert other.equals(alone)


def test_untrained_rows_and_rows_without_signals(new_world):
    found, signals, _, thresholds, _ = new_world
    signals = signals.with_columns(
        pl.when(pl.col("example_id") == 1).then(0).otherwise("presentations").alias("presentations")
    ).filter(pl.col("example_id") != 2)
    rows = module.combine(found, signals, trained_by_then(signals), thresholds, MODEL)
    untrained, unknown = rows.row(1, named=True), rows.row(2, named=True)
    assert (untrained["cause"], untrained["runner_up"]) == (UNATTRIBUTED, None)
    assert untrained["evidence"] == "not trained yet at this point"
    assert (unknown["cause"], unknown["runner_up"]) == (UNATTRIBUTED, None)
    assert unknown["evidence"] and unknown["score_base_conflict"] is None
    nothing = module.combine(found.clear(), signals, trained_by_then(signals), thresholds, MODEL)
    assert nothing.is_empty() and nothing.columns == DIAGNOSIS_SCHEMA.names


def test_only_the_method_that_may_look_at_duplicates_names_them(new_world):
    found, signals, trained, thresholds, planted = new_world
    signals = signals.with_columns(near_ids=pl.lit([5, 6], pl.List(pl.Int64)))
    for method, named in ((MODEL, [5, 6]), (BLIND, None)):
        rows = module.combine(found, signals, trained, thresholds, method)
        conflicts = rows.filter(cause="data_conflict")
        assert len(conflicts) and set(map(str, conflicts["related_ids"].to_list())) == {str(named)}
        assert rows.filter(cause="base_conflict")["related_ids"].null_count() > 0


def test_majority_is_the_most_frequent_cause_of_the_fitting_rows(new_world, tmp_path):
    with open(f"{new_world[3]['fitted']}/model.json") as file:
        parts = json.load(file)
    parts["about"]["rows"] = {"base_conflict": 3, "data_conflict": 5, UNATTRIBUTED: 50}
    (tmp_path / "model.json").write_text(json.dumps(parts))
    rows = told(new_world, "majority", fitted=str(tmp_path)).filter("unlearned")
    assert set(rows["cause"]) == {"data_conflict"} and set(rows["score_data_conflict"]) == {1.0}
    assert rows["runner_up"].null_count() == len(rows)
    assert "5 of 8 rows" in rows["evidence"][0]


def test_without_a_file_the_method_is_refused(new_world, tmp_path):
    for method in (MODEL, BLIND, "majority"):
        with pytest.raises(UserError, match="no fitted classifier.*config.diagnose.methods"):
            told(new_world, method, fitted=str(tmp_path))
    (tmp_path / "model.json").write_text('{"format": 2}')
    with pytest.raises(UserError, match="format 2 is not 1"):
        told(new_world, fitted=str(tmp_path))


def test_what_a_signal_weighs_is_what_the_linear_model_adds(new_world):
    """Of a linear classifier without hinges the fall is its coefficients' difference."""
    _, signals, _, thresholds, _ = new_world
    classifier = module.load(BLIND, thresholds["fitted"])
    (member,) = classifier.members
    flat = member.weights[:, : member.knots.shape[1]]
    object.__setattr__(member, "weights", flat)
    object.__setattr__(member, "knots", member.knots[:0])
    x = classifier.scale.apply(inputs(signals))[:20]
    pair = np.tile([1, 3], (20, 1))
    names, falls = module.weights(classifier, x, classifier.of_scaled(x), pair)
    scale = classifier.scale
    inner = [*scale.names, *scale.told_missing]
    usual = np.append((scale.middle - scale.mean) / scale.spread, np.zeros(len(scale.told_missing)))
    each = (x - usual) * (flat[1] - flat[3]) / classifier.temperature
    for name in ("prob", "base_prob", "slope_end"):
        places = [i for i, one in enumerate(inner) if signal_of(one) == name]
        expected = each[:, places].sum(1)
        np.testing.assert_allclose(falls[:, names.index(name)], expected, atol=1e-9)


def test_the_phase_tells_causes_by_every_method(new_world):
    found, signals, _, thresholds, _ = new_world
    fields = thresholds | {"methods": METHODS}
    rows, _ = diagnose.causes_at(found, signals, fields)
    assert [one["method"].unique().to_list() for one in rows] == [[one] for one in METHODS]
    about = module.provenance(METHODS, fields["fitted"])
    assert set(about) == {MODEL, BLIND} and about[MODEL]["worlds"] == [0, 1, 2]
    assert module.provenance(("rules", "paper"), "nowhere") == {}
