"""Methods ``model``, ``model_blind`` and ``majority``: verdicts of a fitted classifier.

The classes are the five causes and ``unattributed``. The last was fitted too: on rows of
planted worlds that the base model knew and a planted pipeline fault kept from being learned,
and on control rows that were unlearned by chance. A fault of another kind need not look like
these; for it there is the second way out, a least probability of the likeliest cause.

A classifier knows unlearned rows only, so rows that were learned or not yet trained have no
scores. ``score_`` is the calibrated probability, ``flag_`` is raised on the cause that is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from ilp_jax import files
from ilp_jax.analysis.cascade import KEY, attribute
from ilp_jax.analysis.fitted.classifier import Classifier, from_json
from ilp_jax.analysis.fitted.figures import decide
from ilp_jax.analysis.fitted.inputs import BLIND, MODEL, inputs, signal_of
from ilp_jax.errors import UserError
from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED

MAJORITY = "majority"
CLASSIFIED = (MODEL, BLIND)
METHODS = (*CLASSIFIED, MAJORITY)
WEIGHED = 3
"""Signals that the evidence names."""
_TINY = 1e-12
_AT_ONCE = 1024  # rows; trees take an array of rows x trees


def load(method: str, folder: str = "") -> Classifier:
    """Reads a fitted classifier.

    Args:
      method: ``model`` or ``model_blind``.
      folder: where ``{method}.json`` is; those of the package by default.

    Raises:
      UserError: there is none, or it is none.
    """
    path = (epath.Path(folder) if folder else Path(__file__).parent) / f"{method}.json"
    if not path.exists():
        raise UserError(
            path,
            f"there is no fitted classifier for the method {method}",
            "leave it out of config.diagnose.methods, or fit one: "
            "python -m ilp_jax.analysis.fitted --workdirs ...",
        )
    try:
        return from_json(files.read_json(path))
    except ValueError as error:
        raise UserError(path, str(error), "fit it again, or restore it") from error


def combine(
    found: pl.DataFrame,
    signals: pl.DataFrame,
    trained: pl.DataFrame,
    thresholds: Mapping[str, Any],
    method: str,
    values: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Rows of ``diagnosis.parquet`` for one of `METHODS`.

    Args:
      found: ``example_id``, ``point``, ``detector``, ``unlearned`` of trained rows.
      signals: ``signals.parquet`` of all trained rows of the same points.
      trained: what ``cascade.trained_by_then`` gave.
      thresholds: the config's group ``diagnose``: ``fitted``, ``model_probability``.
      method: one of `METHODS`.
      values: rows of ``inputs.inputs``, where ``signals`` are of a part of the trained rows:
        some inputs are ranks among all of them.

    Returns:
      The columns of ``DIAGNOSIS_SCHEMA``, a row for each of ``found``.

    Raises:
      UserError: the fitted classifier is missing or damaged.
    """
    classifier = load(MODEL if method == MAJORITY else method, thresholds["fitted"])
    lost = found.filter(pl.col("unlearned")).select(KEY).unique(maintain_order=True)
    asked = lost.join(trained.filter("trained"), on=KEY, how="semi", maintain_order="left")
    if method == MAJORITY:
        judged = most_frequent(asked, classifier)
    else:
        values = inputs(signals) if values is None else values
        judged = judge(asked, values, classifier, thresholds["model_probability"])
    if method == MODEL:
        judged = judged.join(
            signals.select(*KEY, pl.col("near_ids").alias("related_data_conflict")),
            on=KEY,
            how="left",
            maintain_order="left",
        )
    nobody = pl.lit(None, pl.List(pl.Int64))
    absent = [f"related_{cause}" for cause in CAUSES if f"related_{cause}" not in judged.columns]
    rows = (
        found.join(judged, on=KEY, how="left", maintain_order="left")
        .join(trained, on=KEY, how="left", maintain_order="left")
        .with_columns(
            pl.col("trained").fill_null(True),
            *(nobody.alias(name) for name in absent),
            *(pl.lit(True).alias(f"counts_{cause}") for cause in CAUSES),
            *(pl.col("text").alias(f"evidence_{cause}") for cause in CAUSES),
        )
    )
    told = attribute(rows, CAUSES, method)
    # One text speaks of all causes, so it stands for none of them as well.
    none = (pl.col("cause") == UNATTRIBUTED) & pl.col("text").is_not_null()
    text = rows.select("text").with_columns(told["cause"])
    whole = text.select(pl.when(none).then("text"))["text"]
    return told.with_columns(pl.coalesce(whole, "evidence").alias("evidence"))


def most_frequent(asked: pl.DataFrame, classifier: Classifier) -> pl.DataFrame:
    """The most frequent cause of the fitting rows, for every row; see `judge`."""
    rows = {cause: classifier.about["rows"].get(cause, 0) for cause in CAUSES}
    most = max(rows, key=rows.get)
    text = (
        f"{most.replace('_', ' ')} was the most frequent cause, {rows[most]} of "
        f"{sum(rows.values())} rows, where the methods were fitted; this row was not looked at"
    )
    return asked.with_columns(
        *(pl.lit(float(cause == most)).alias(f"score_{cause}") for cause in CAUSES),
        *(pl.lit(cause == most).alias(f"flag_{cause}") for cause in CAUSES),
        pl.lit(text).alias("text"),
    )


def judge(
    asked: pl.DataFrame, values: pl.DataFrame, classifier: Classifier, least: float
) -> pl.DataFrame:
    """Probabilities, flags and evidence of some rows.

    Args:
      asked: ``example_id`` and ``point`` of unlearned rows.
      values: rows of ``inputs.inputs``.
      classifier: the fitted classifier.
      least: see `figures.decide`.

    Returns:
      ``asked`` with ``score_`` and ``flag_`` of each cause, and ``text``, the evidence. A row
      without signals has none of it.
    """
    values = asked.join(values, on=KEY, maintain_order="left")
    x_NxD = classifier.scale.apply(values)
    p_NxK = classifier.of_scaled(x_NxD)
    told = decide(p_NxK, classifier.classes, least)
    scores = {f"score_{cause}": p_NxK[:, list(classifier.classes).index(cause)] for cause in CAUSES}
    judged = values.select(KEY).with_columns(
        *(pl.Series(name, score) for name, score in scores.items()),
        *(pl.Series(f"flag_{cause}", told == cause) for cause in CAUSES),
        pl.Series("text", _texts(values, x_NxD, p_NxK, told, classifier, least), pl.String),
    )
    return asked.join(judged, on=KEY, how="left", maintain_order="left")


def weights(
    classifier: Classifier, x_NxD: np.ndarray, p_NxK: np.ndarray, pair_Nx2: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """How much each signal speaks for one class against another.

    Args:
      classifier: the fitted classifier.
      x_NxD: rows that its scale gave.
      p_NxK: their probabilities.
      pair_Nx2: each row's two classes.

    Returns:
      Signals, and float64 [n_rows, n_signals]: by how much the log-odds of the two classes
      (nats) fall where the signal takes the middle value of the fitting rows instead.
    """
    scale, rows = classifier.scale, np.arange(len(x_NxD))
    columns: dict[str, list[int]] = {}
    for i, name in enumerate([*scale.names, *scale.told_missing]):
        columns.setdefault(signal_of(name), []).append(i)
    usual_D = np.concatenate(
        [(scale.middle - scale.mean) / scale.spread, np.zeros(len(scale.told_missing))]
    )

    def odds(p_NxK: np.ndarray) -> np.ndarray:
        logs = np.log(np.maximum(p_NxK, _TINY))
        return logs[rows, pair_Nx2[:, 0]] - logs[rows, pair_Nx2[:, 1]]

    now_N = odds(p_NxK)
    changed = classifier.without(x_NxD, usual_D, list(columns.values()))
    return list(columns), np.stack([now_N - odds(one_NxK) for one_NxK in changed], axis=1)


def _texts(
    values: pl.DataFrame,
    x_NxD: np.ndarray,
    p_NxK: np.ndarray,
    told: np.ndarray,
    classifier: Classifier,
    least: float,
) -> list[str]:
    if not len(values):
        return []
    order_NxK = np.argsort(-p_NxK, axis=1, kind="stable")
    names, falls_NxS = weights(classifier, x_NxD, p_NxK, order_NxK[:, :2])
    most_NxS = np.argsort(-falls_NxS, axis=1, kind="stable")[:, :WEIGHED]
    shown = values.to_dicts()
    usual = dict(zip(classifier.scale.names, classifier.scale.middle.tolist(), strict=True))
    texts = []
    for i, row in enumerate(shown):
        likely = [f"{_words(classifier.classes[k])} {p_NxK[i, k]:.2f}" for k in order_NxK[i, :3]]
        text = f"probabilities: {', '.join(likely)}"
        if told[i] == UNATTRIBUTED and classifier.classes[order_NxK[i, 0]] != UNATTRIBUTED:
            text += f" (no cause reaches {least})"
        weighing = [names[s] for s in most_NxS[i] if falls_NxS[i, s] > 0]
        parts = "; ".join(_shown(name, row, usual) for name in weighing)
        texts.append(f"{text}. What weighs most for the first against the second: {parts}")
    return texts


def _shown(signal: str, row: Mapping[str, Any], usual: Mapping[str, float]) -> str:
    """A signal's value and rank beside what is usual among the fitting rows."""
    parts = [
        f"{'rank ' if name != signal else ''}{_number(row[name])} (usually {usual[name]:.2f})"
        for name in (signal, f"rank_{signal}")
        if name in usual
    ]
    return f"{_words(signal)} {', '.join(parts)}"


def _number(value: float | None) -> str:
    return "not known" if value is None or np.isnan(value) else f"{value:.2f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def provenance(methods: Sequence[str], folder: str = "") -> dict[str, Any]:
    """What the fitted classifiers among some methods were fitted on, by method.

    Args:
      methods: names of methods, of any kind.
      folder: as for `load`.
    """
    return {one: dict(load(one, folder).about) for one in methods if one in (MODEL, BLIND)}
