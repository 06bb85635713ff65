"""Fits classifiers of causes with scikit-learn, and judges them on worlds left out.

A world is left out with all its families and seeds, since they share facts and rows. Every
figure and the temperature rest on probabilities of worlds that the classifier was not fitted
on; the temperature that a figure of one world uses is fitted on the others'.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import optimize

from ilp_jax.analysis.fitted.classifier import Classifier, Scale, tempered
from ilp_jax.analysis.fitted.kinds import CANDIDATES, Member
from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED

CLASSES = (*CAUSES, UNATTRIBUTED)
CLIP = (0.005, 0.995)
"""Quantiles beyond which an input says no more than at them."""
MISSING = 0.01
"""Least share of gaps, and of the rest, for an input to have a column that tells its gaps."""
TEMPERATURES = (0.2, 5.0)


def fit(
    values: pl.DataFrame,
    labels: Sequence[str],
    worlds: Sequence[int],
    names: Sequence[str],
    kind: str,
    about: Mapping[str, Any],
) -> Classifier:
    """Fits a classifier on all rows and calibrates it on worlds left out.

    Args:
      values: a column for each input; null where not known.
      labels: each row's class, of `CLASSES`.
      worlds: each row's world.
      names: inputs to use.
      kind: one of `CANDIDATES`.
      about: what stands in the file beside kind and version.

    Raises:
      ValueError: there are fewer than two worlds, or a class has no row outside some world.
    """
    y = _places(labels, CLASSES)
    raw = left_out(values, labels, worlds, names, kind, CLASSES)
    scale = fit_scale(values, names)
    members = _members(kind, scale.apply(values), y, len(CLASSES))
    versions = {"kind": kind, "scikit-learn": importlib.metadata.version("scikit-learn")}
    return Classifier(
        CLASSES,
        scale,
        tuple(member for _, member in members),
        temperature(raw, y),
        {**about, **versions},
    )


def left_out(
    values: pl.DataFrame,
    labels: Sequence[str],
    worlds: Sequence[int],
    names: Sequence[str],
    kind: str,
    classes: Sequence[str] = CLASSES,
) -> np.ndarray:
    """Probabilities of each row by a classifier that was not fitted on its world.

    Args:
      values: as for `fit`.
      labels: each row's class.
      worlds: as for `fit`.
      names: inputs to use.
      kind: one of `CANDIDATES`.
      classes: what is told apart; rows with another label are judged and not fitted on.

    Returns:
      float64 [n_rows, n_classes], before any temperature.

    Raises:
      ValueError: as for `fit`.
    """
    y, worlds = _places(labels, classes), np.asarray(worlds)
    if len(np.unique(worlds)) < 2:
        raise ValueError("one world cannot be left out of one: fit on two or more")
    raw = np.zeros((len(y), len(classes)))
    for world in np.unique(worlds):
        out = worlds == world
        fitted = ~out & (y >= 0)
        scale = fit_scale(values.filter(fitted), names)
        members = _members(kind, scale.apply(values.filter(fitted)), y[fitted], len(classes))
        x_NxD = scale.apply(values.filter(out))
        raw[out] = np.mean([member.of_raw(member.raw(x_NxD)) for _, member in members], axis=0)
    return raw


def calibrated(
    raw_NxK: np.ndarray,
    labels: Sequence[str],
    worlds: Sequence[int],
    classes: Sequence[str] = CLASSES,
) -> np.ndarray:
    """What `left_out` gave, each world under the temperature of the other worlds."""
    y, worlds, told = _places(labels, classes), np.asarray(worlds), np.zeros_like(raw_NxK)
    for world in np.unique(worlds):
        out = worlds == world
        others = ~out & (y >= 0)
        told[out] = tempered(raw_NxK[out], temperature(raw_NxK[others], y[others]))
    return told


def fit_scale(values: pl.DataFrame, names: Sequence[str]) -> Scale:
    """Clipping, middle, mean and spread of each input over some rows; see `Scale`."""
    low, high, middle, mean, spread, told_missing = [], [], [], [], [], []
    for name in names:
        one = values[name].cast(pl.Float64).to_numpy()
        seen = one[~np.isnan(one)]
        seen = seen if len(seen) else np.zeros(1)
        clip = np.quantile(seen, CLIP)
        low.append(clip[0])
        high.append(clip[1])
        middle.append(np.median(seen))
        filled = np.where(np.isnan(one), middle[-1], np.clip(one, *clip))
        mean.append(filled.mean())
        spread.append(filled.std() if filled.std() > 1e-9 else 1.0)
        if MISSING <= np.isnan(one).mean() <= 1 - MISSING:
            told_missing.append(name)
    arrays = [np.array(part, np.float64) for part in (low, high, middle, mean, spread)]
    return Scale(tuple(names), *arrays, tuple(told_missing))


def temperature(p_NxK: np.ndarray, y_N: np.ndarray) -> float:
    """The temperature of least log loss (Guo et al. 2017, "On calibration")."""

    def loss(log_temperature: float) -> float:
        return log_loss(tempered(p_NxK, float(np.exp(log_temperature))), y_N)

    bounds = tuple(np.log(TEMPERATURES))
    return float(np.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _places(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Each label's place among the classes, -1 for others."""
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place.get(label, -1) for label in labels])


def _members(kind: str, x_NxD: np.ndarray, y_N: np.ndarray, n_classes: int) -> list[Member]:
    if len(np.unique(y_N)) < n_classes:
        raise ValueError("a class has no row outside one of the worlds")
    return [make(x_NxD, y_N) for make in CANDIDATES[kind]]


def log_loss(p_NxK: np.ndarray, y_N: np.ndarray) -> float:
    """Mean of -log p of the true class (nats)."""
    return -float(np.log(np.maximum(p_NxK[np.arange(len(y_N)), y_N], 1e-12)).mean())
