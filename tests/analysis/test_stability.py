"""Stability of the unlearned set against enumerated outcomes and scikit-learn."""

import itertools
import json

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score, jaccard_score

from ilp_jax.analysis.stability import across, within
from ilp_jax.errors import UserError
from ilp_jax.stats.reader import write_diagnosis
from ilp_jax.stats.schema import DIAGNOSIS_SCHEMA

DETECT = {"pass_threshold": 0.2, "n_samples": 5, "stability_n_samples": [1, 5, 10]}
SCHEMA = {
    "example_id": pl.Int64,
    "mode": pl.String,
    "run": pl.Int32,
    "prompt_variant": pl.Int32,
    "temperature": pl.Float64,
    "seed": pl.Int64,
    "correct": pl.Boolean,
    "gold_logprob": pl.Float64,
}
P = (0.02, 0.1, 0.3, 0.7)


def laws(p=P, temperature=0.7):
    common = {"mode": "sample", "run": 0, "prompt_variant": 0, "temperature": temperature}
    rows = [
        common | {"example_id": i, "gold_logprob": float(np.log(one))} for i, one in enumerate(p)
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


def drawn(outcomes, mode="sample"):
    rows = [
        {"example_id": i, "mode": mode, "run": r, "prompt_variant": 3, "seed": 0, "correct": right}
        for i, of_row in enumerate(outcomes)
        for r, right in enumerate(of_row)
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


def expected(q):
    """Mean Jaccard index and kappa over all pairs of independent sets, weighted."""
    found = {"jaccard": [], "kappa": []}
    for a, b in itertools.product(itertools.product([True, False], repeat=len(q)), repeat=2):
        weight = np.prod(
            [one if hit else 1 - one for hit, one in zip(a + b, [*q, *q], strict=True)]
        )
        if any(a) or any(b):
            found["jaccard"].append((weight, jaccard_score(a, b, zero_division=0)))
        if not (all(a) and all(b)) and (any(a) or any(b)):
            found["kappa"].append((weight, cohen_kappa_score(a, b)))
    return {
        name: sum(weight * value for weight, value in pairs) / sum(weight for weight, _ in pairs)
        for name, pairs in found.items()
    }


@pytest.fixture(scope="module")
def many():
    """Many repetitions, so that their mean is near what all outcomes give."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ilp_jax.analysis.stability.REPETITIONS", 20_000)
        halves = drawn([[True, False, False, False], [False] * 4, [True, True, False, False]])
        yield within(pl.concat([laws(), halves, laws((0.1, 0.1, 0.1, 0.9), 1.0)]), DETECT, 0)


def test_repeated_draws_against_all_outcomes(many):
    of_main = [one for one in many["law"] if one["temperature"] == 0.7]
    assert [one["n_samples"] for one in of_main] == [1, 5, 10] and of_main[0]["n"] == 4
    for one in of_main:
        most = {1: 0, 5: 0, 10: 1}[one["n_samples"]]
        q = [stats.binom.cdf(most, one["n_samples"], p) for p in P]
        assert one["share"] == pytest.approx(np.mean(q))
        for name, wanted in expected(q).items():
            # Four standard errors of 20,000 values in an interval of length 2 at most.
            assert one[name]["value"] == pytest.approx(wanted, abs=0.02), name


def test_halves_against_all_splits(many):
    [found] = many["halves"]
    assert found["detector"] == "sampled" and found["n_runs"] == 2 and found["n"] == 3
    # One of four right: a half has it or not, so one of the two halves is flagged. None right:
    # both are flagged. Two right: with 1/3 in one half, else one in each, and none is flagged.
    options = [[(1, 0), (0, 1)], [(1, 1)], [(1, 0), (0, 1), (0, 0), (0, 0), (0, 0), (0, 0)]]
    values = []
    for outcome in itertools.product(*options):
        a, b = np.array(outcome, bool).T
        values.append((jaccard_score(a, b), a.mean(), cohen_kappa_score(a, b)))
    jaccard, share, _ = np.mean(values, axis=0)
    assert found["jaccard"]["value"] == pytest.approx(jaccard, abs=0.02)
    assert found["share"] == pytest.approx(share, abs=0.02)
    assert found["kappa"]["value"] == pytest.approx(np.mean([v[2] for v in values]), abs=0.03)


def test_verdicts_at_two_temperatures(many):
    [found] = many["temperatures"]
    cool, warm = ([(1 - p) ** 5 >= 0.5 for p in ps] for ps in (P, (0.1, 0.1, 0.1, 0.9)))
    assert found["temperatures"] == [0.7, 1.0] and found["n"] == 4
    assert found["kappa"]["value"] == pytest.approx(cohen_kappa_score(cool, warm))
    assert found["jaccard"]["value"] == pytest.approx(jaccard_score(cool, warm))


def test_certain_answers_are_stable_and_one_draw_has_no_halves():
    found = within(pl.concat([laws((1e-9, 1.0)), drawn([[True], [False]])]), DETECT, 0)
    for one in found["law"]:
        assert one["jaccard"] == {"value": 1.0, "interval": [1.0, 1.0]}
        assert one["share"] == pytest.approx(0.5)
    assert found["halves"] == found["temperatures"] == []


def test_permuted_runs_are_split_too():
    found = within(drawn([[True] * 5, [False] * 5], "choice"), DETECT, 0)
    assert found["law"] == []
    [one] = found["halves"]
    assert one["detector"] == "choice_runs" and one["n_runs"] == 2 and one["share"] == 0.5
    assert one["kappa"]["value"] == 1


@pytest.fixture
def write_run(tmp_path):
    def write(name, verdicts, seed, **fields):
        folder = tmp_path / name
        folder.mkdir()
        config = {"seed": seed, "train": {"batch_size": 8, **fields}}
        (folder / "run.json").write_text(json.dumps({"config": config}))
        rows = [
            {
                "example_id": i,
                "point": point,
                "detector": detector,
                "method": method,
                "unlearned": verdict if point == "final" else True,
            }
            for i, verdict in verdicts.items()
            for point in ("final", "base")
            for detector in ("exact_match", "choice")
            for method in ("none", "rules")
        ]
        table = pl.DataFrame(rows, schema_overrides={"unlearned": pl.Boolean})
        untold = [one for one in DIAGNOSIS_SCHEMA.names if one not in table.columns]
        write_diagnosis(folder, table.with_columns(pl.lit(None).alias(one) for one in untold))
        return folder

    return write


def test_runs_are_compared_on_the_rows_they_share(write_run):
    rng = np.random.default_rng(0)
    sets = rng.random((3, 20)) < np.linspace(0.1, 0.9, 20)
    runs = []
    for k, verdicts in enumerate(sets):
        own = {i: bool(one) for i, one in enumerate(verdicts)}
        own |= {4: None} if k == 1 else {}  # The detector does not apply in one run.
        runs.append(write_run(f"run{k}", own | {100 + k: True}, seed=k))
    found = across(runs)
    assert found["seeds"] == [0, 1, 2] and found["differ"] == ["seed"]
    names = {one["detector"]: one for one in found["detectors"]}
    assert set(names) == {"default", "exact_match", "choice"}
    common = np.delete(sets, 4, axis=1)
    for one in names.values():
        assert one["n"] == 19 and one["n_any"] == 23
        assert [share["count"] for share in one["shares"]] == common.sum(axis=1).tolist()
        times = common.sum(axis=0).tolist()
        assert one["unlearned_in"] == [times.count(k) for k in range(4)]
        assert one["in_all"]["count"] == times.count(3)
        assert one["in_all"]["by_chance"] == pytest.approx(np.prod(common.mean(axis=1)))
        assert [pair["runs"] for pair in one["pairs"]] == [[0, 1], [0, 2], [1, 2]]
        for pair in one["pairs"]:
            a, b = (common[k] for k in pair["runs"])
            assert pair["kappa"]["value"] == pytest.approx(cohen_kappa_score(a, b))
            assert pair["jaccard"]["value"] == pytest.approx(jaccard_score(a, b))
    json.dumps(found, allow_nan=False)


def test_what_else_differs_between_runs_is_told(write_run):
    runs = [write_run("a", {1: True}, 0), write_run("b", {2: True}, 0, batch_size=4)]
    found = across(runs)
    assert found["differ"] == ["train.batch_size"]
    assert {(one["n"], one["n_any"]) for one in found["detectors"]} == {(0, 2)}


def test_wrong_folders_are_refused(write_run, tmp_path):
    run = write_run("a", {1: True}, 0)
    for runs in ([], [run], [run, run]):
        with pytest.raises(UserError, match="two different folders"):
            across(runs)
    with pytest.raises(UserError, match="nowhere"):
        across([run, tmp_path / "nowhere"])
