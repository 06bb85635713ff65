"""Agreement with planted causes against scikit-learn and loops over rows."""

import numpy as np
import polars as pl
import pytest
from sklearn import metrics

from ilp_jax.analysis import agreement_table, calibration
from ilp_jax.analysis.agreement import agreement
from ilp_jax.analysis.planted import load_planted
from ilp_jax.analysis.planted_shares import planted_shares
from ilp_jax.analysis.resample import draw, with_units
from ilp_jax.analysis.shares import interval
from ilp_jax.stats import reader
from ilp_jax.stats.schema import CAUSES
from ilp_jax.stats.truth import read_truth


@pytest.fixture
def folders(planted_run):
    how = {"rules": 0.7, "model": 0.85, "model_blind": 0.6}
    return [
        planted_run("a", n=20, seed=1, world=1, methods=how),
        planted_run("b", n=20, seed=2, world=1, family="qwen2", methods=how),
        planted_run("c", n=20, seed=3, world=2, methods={"rules": 0.5}),
    ]


def figures(folders, label="planted", resamples=200, seed=0):
    runs, world_U = with_units([load_planted(folder) for folder in folders])
    weights = draw(world_U, resamples, seed)
    return agreement(runs, label, weights), planted_shares(runs, label, weights)


def rows_of(folders, detector, method, label="planted"):
    """True and told causes of unlearned rows, run by run, straight from the files."""
    out = []
    for place, folder in enumerate(folders):
        truth = {row["example_id"]: row for row in read_truth(folder).to_dicts()}
        if label == "belief":
            said = load_planted(folder).verdicts
            for id_, belief in said.select("example_id", "belief").unique().iter_rows():
                truth[id_] = truth[id_] | {"planted": belief}
        for row in reader.read_diagnosis(folder).to_dicts():
            of = (row["point"], row["detector"], row["method"]) == ("final", detector, method)
            if of and row["unlearned"]:
                known = truth[row["example_id"]]
                out.append(row | known | {"world": (1, 1, 2)[place], "run": place})
    return out


@pytest.mark.parametrize("label", ["planted", "belief"])
@pytest.mark.parametrize("detector", ["sampled", "choice"])
@pytest.mark.parametrize("method", ["rules", "model"])
def test_figures_are_those_of_scikit_learn(folders, detector, method, label):
    found = figures(folders, label)[0][detector][method]
    rows = rows_of(folders, detector, method, label)
    scored = [row for row in rows if row["planted"] in CAUSES]
    true, told = ([row[name] for row in scored] for name in ("planted", "cause"))
    how = {"labels": list(CAUSES), "zero_division": 0}
    assert found["n"] == len(scored) and found["runs"] == (3 if method == "rules" else 2)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(true, told, average="macro", **how))
    recall = metrics.recall_score(true, told, average=None, **how)
    assert list(found["recall"].values()) == pytest.approx(recall)
    for cause in CAUSES:
        assert found["n_by_cause"][cause] == true.count(cause)
    for planted, line in found["confusion"].items():
        for cause, count in line.items():
            assert count == sum((r["planted"], r["cause"]) == (planted, cause) for r in rows)
    for kind, names in {"causes": CAUSES, "fault": ["fault"], "control": ["control"]}.items():
        of = [row["cause"] for row in rows if row["planted"] in names]
        left = found["unattributed"][kind]
        assert (left["n"], left["count"]) == (len(of), of.count("unattributed"))
        assert left["interval"] == list(interval(left["count"], left["n"]))
    details = [(r["planted"], r["detail"], r["cause"] == r["planted"]) for r in scored]
    for cause, parts in found["recall_by_detail"].items():
        for detail, part in parts.items():
            hits = [right for *place, right in details if place == [cause, detail]]
            assert (part["n"], part["count"]) == (len(hits), sum(hits))


def test_calibration_is_of_methods_with_probabilities_alone(folders):
    found = figures(folders)[0]["sampled"]
    assert found["rules"]["ece"] is found["rules"]["reliability"] is None
    assert found["rules"]["intervals"]["ece"] is None
    rows = [r for r in rows_of(folders, "sampled", "model") if r["planted"] in CAUSES]
    p, right = [], []
    for row in rows:
        scores = {cause: row[f"score_{cause}"] for cause in CAUSES}
        cause = row["cause"] if row["cause"] in CAUSES else max(scores, key=scores.get)
        p.append(scores[cause])
        right.append(cause == row["planted"])
    known = calibration.ece(np.array(p), np.array(right))
    assert found["model"]["ece"] == pytest.approx(known, abs=1e-12)
    low, high = found["model"]["intervals"]["ece"]
    assert 0 < low < high < 1


def test_intervals_are_those_of_resampling_worlds_then_groups(folders):
    found = figures(folders, resamples=3000)[0]["sampled"]["rules"]["intervals"]
    rows = rows_of(folders, "sampled", "rules")
    # All groups of a world are drawn, those without an unlearned row too.
    groups = {w: sorted(set(read_truth(folders[w])["group_id"])) for w in (1, 2)}
    by_group = {}
    for row in rows:
        by_group.setdefault((row["world"], row["group_id"]), []).append(row)
    rng = np.random.default_rng(5)
    macro, recall, left = [], [], []
    for _ in range(800):
        some = []
        for world in rng.choice([1, 2], size=2):
            for group in rng.choice(groups[world], size=len(groups[world])):
                some += by_group.get((world, group), [])
        scored = [row for row in some if row["planted"] in CAUSES]
        true, told = ([row[name] for row in scored] for name in ("planted", "cause"))
        how = {"labels": list(CAUSES), "zero_division": 0}
        macro.append(metrics.f1_score(true, told, average="macro", **how))
        recall.append(metrics.recall_score(true, told, average=None, **how)[2])
        left.append(told.count("unattributed") / len(told))
    pairs = (
        (found["macro_f1"], macro),
        (found["recall"][CAUSES[2]], recall),
        (found["unattributed"]["causes"], left),
    )
    for interval_, values in pairs:
        # A percentile over 800 resamples has a standard error of a tenth of the spread.
        near = 0.35 * np.std(values)
        assert interval_ == pytest.approx(np.percentile(values, [2.5, 97.5]).tolist(), abs=near)


def test_shares_of_planted_groups_and_subclasses(folders):
    cells = figures(folders)[1]
    rows = []
    for folder in folders:
        truth = {row["example_id"]: row for row in read_truth(folder).to_dicts()}
        for row in reader.read_diagnosis(folder).to_dicts():
            if (row["point"], row["method"]) == ("final", "none"):
                rows.append(row | truth[row["example_id"]])
    assert len({(c["detector"], c["planted"], c["detail"]) for c in cells}) == len(cells)
    for cell in cells:
        of = [
            row["unlearned"]
            for row in rows
            if (row["detector"], row["planted"]) == (cell["detector"], cell["planted"])
            and cell["detail"] in (None, row["detail"])
        ]
        assert (cell["n"], cell["unlearned"]) == (len(of), sum(of))
        assert cell["interval"] == list(interval(sum(of), len(of)))
        low, high = cell["resampled"]
        assert low <= cell["share"] <= high
    whole = [cell for cell in cells if cell["detail"] is None]
    assert [c["planted"] for c in whole if c["detector"] == "choice"][:5] == list(CAUSES)
    assert sum(c["n"] for c in whole) == sum(c["n"] for c in cells if c["detail"]) == len(rows)


def test_a_cause_without_rows_is_left_out_of_the_mean(folders):
    rows = reader.read_diagnosis(folders[2])
    gone = read_truth(folders[2]).filter(pl.col("planted") == CAUSES[0])["example_id"]
    learned = pl.col("example_id").is_in(gone.implode())
    rows = rows.with_columns(pl.when(learned).then(False).otherwise("unlearned").alias("unlearned"))
    reader.write_diagnosis(folders[2], rows)
    found = figures(folders[2:])[0]["sampled"]["rules"]
    assert found["recall"][CAUSES[0]] is found["intervals"]["recall"][CAUSES[0]] is None
    assert found["macro_f1"] == pytest.approx(np.mean([found["f1"][c] for c in CAUSES[1:]]))
    nothing = rows.with_columns(unlearned=pl.lit(False))
    reader.write_diagnosis(folders[2], nothing)
    found, cells = figures(folders[2:])
    assert found["sampled"]["rules"]["n"] == 0 and found["sampled"]["rules"]["macro_f1"] is None
    assert found["sampled"]["rules"]["unattributed"]["fault"] is None
    assert agreement_table.number(None) == agreement_table.share_text(None, None) == "-"
    assert all(cell["share"] == 0 for cell in cells)


def test_a_recall_of_all_rows_is_shown_with_wilsons_width():
    figures_ = {
        "n_by_cause": {"data_conflict": 55},
        "confusion": {"data_conflict": {"data_conflict": 55}},
        "intervals": {"recall": {"data_conflict": [1.0, 1.0]}},
    }
    low = interval(55, 55)[0]
    assert agreement_table.recall_text(
        figures_, "data_conflict"
    ) == f"1.00 [{low:.2f}, 1.00]".replace("[0.", "[.")
    figures_["n_by_cause"] = {"data_conflict": 0}
    assert agreement_table.recall_text(figures_, "data_conflict") == "-"
