"""The plain-number classifiers against scikit-learn's own probabilities."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from ilp_jax.analysis.fitted import fit, kinds
from ilp_jax.analysis.fitted.classifier import Classifier, Scale, from_json, tempered
from ilp_jax.analysis.fitted.members import hinged

N, D, K = 400, 7, 6


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    y = np.arange(N) % K
    x = rng.normal(size=(N, D)) + np.eye(K, D)[y] * 1.5
    x[:, 3] = np.round(x[:, 3], 1)  # ties, as ranks have
    return x, y


def as_file(classifier):
    return from_json(json.loads(classifier.to_json()))


def plain_scale():
    one, nothing = np.ones(D), np.zeros(D)
    return Scale(tuple("abcdefg"), -99 * one, 99 * one, nothing, nothing, one, ())


@pytest.mark.parametrize("make", [kinds.linear, kinds.boosted, kinds.forest])
def test_members_are_scikit_learns(make, rows):
    x, y = rows
    estimator, member = make(x, y)
    fresh = np.random.default_rng(1).normal(size=(300, D)) * 2
    seen = hinged(fresh, member.knots) if make is kinds.linear else fresh
    theirs = estimator.predict_proba(seen)
    np.testing.assert_allclose(member.of_raw(member.raw(fresh)), theirs, atol=1e-12)
    # And from the file, whose numbers are shorter.
    classifier = as_file(Classifier(tuple("ABCDEF"), plain_scale(), (member,), 1.0, {}))
    frame = pl.DataFrame(fresh, schema=list("abcdefg"))
    np.testing.assert_allclose(classifier.probabilities(frame), theirs, atol=1e-6)


def test_the_mean_of_members_at_a_temperature(rows):
    x, y = rows
    made = [make(x, y) for make in kinds.CANDIDATES["all"]]
    members = tuple(member for _, member in made)
    classifier = as_file(Classifier(tuple("ABCDEF"), plain_scale(), members, 1.7, {"a": 1}))
    mean = np.mean([m.of_raw(m.raw(x)) for m in members], axis=0) ** (1 / 1.7)
    got = classifier.probabilities(pl.DataFrame(x, schema=list("abcdefg")))
    np.testing.assert_allclose(got, mean / mean.sum(1, keepdims=True), atol=1e-6)
    assert classifier.about == {"a": 1}


def test_probabilities_without_some_columns_are_those_of_the_changed_rows(rows):
    x, y = rows
    members = tuple(make(x, y)[1] for make in kinds.CANDIDATES["all"])
    classifier = Classifier(tuple("ABCDEF"), plain_scale(), members, 1.3, {})
    usual, groups = np.arange(D) / D, [[0], [2, 5], []]
    for columns, got in zip(groups, classifier.without(x, usual, groups), strict=True):
        changed = x.copy()
        changed[:, columns] = usual[columns]
        np.testing.assert_allclose(got, classifier.of_scaled(changed), atol=1e-12)


def test_scale_is_scikit_learns_imputation_and_standardisation(rows):
    x, _ = rows
    x = x.copy()
    x[::5, 0] = np.nan
    frame = pl.DataFrame(x, schema=list("abcdefg")).with_columns(pl.all().fill_nan(None))
    scale = fit.fit_scale(frame, list("abcdefg"))
    low, high = np.nanquantile(x, fit.CLIP, axis=0)
    clipped = np.where(np.isnan(x), x, np.clip(x, low, high))
    imputer = SimpleImputer(strategy="median", add_indicator=True)
    imputed = imputer.fit_transform(x)[:, -1:]
    filled = SimpleImputer(strategy="constant").fit_transform(
        np.where(np.isnan(clipped), np.nanmedian(x, axis=0), clipped)
    )
    expected = np.hstack([StandardScaler().fit_transform(filled), imputed])
    np.testing.assert_allclose(scale.apply(frame), expected, atol=1e-9)
    assert scale.told_missing == ("a",)
    # An absent column is one of which nothing is known.
    unknown = frame.with_columns(pl.lit(None, pl.Float64).alias("c"))
    np.testing.assert_array_equal(scale.apply(frame.drop("c")), scale.apply(unknown))
    assert np.isfinite(scale.apply(pl.DataFrame({"b": [None, float("nan"), 1e300]}))).all()


def test_temperature_recovers_what_was_done_to_calibrated_probabilities():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(K), 20000)
    y = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    assert fit.temperature(tempered(p, 0.5), y) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda parts: parts.pop("scale"),
        lambda parts: parts.update(format=99),
        lambda parts: parts["classes"].pop(),
        lambda parts: parts["members"][0].update(kind="pickle"),
        lambda parts: parts["members"][0]["weights"]["values"].pop(),
    ],
)
def test_a_damaged_file_is_refused(spoil, rows):
    _, member = kinds.linear(*rows)
    classifier = Classifier(tuple("ABCDEF"), plain_scale(), (member,), 1.0, {})
    parts = json.loads(classifier.to_json())
    spoil(parts)
    with pytest.raises(ValueError):
        from_json(parts)
