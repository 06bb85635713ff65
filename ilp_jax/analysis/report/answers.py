"""What the model said of a row, and how its loss and probability went over the visits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis.report.load import Run
from ilp_jax.analysis.report.text import cut
from ilp_jax.stats import reader

_DRAWN = 10  # answers quoted a point, when more were drawn


def said(
    run: Run, ids: Sequence[int], points: Sequence[str], limit: int
) -> dict[int, dict[str, dict[str, Any]]]:
    """Answers to the question as trained.

    Args:
      run: the run.
      ids: the rows wanted.
      points: the points wanted; those that were not asked are absent.
      limit: characters of an answer kept.

    Returns:
      By row, then point: ``g`` the greedy answer, ``p`` the probability of the response by
      that forward, ``c`` the option chosen, ``q`` its probability, ``o`` the
      log-likelihood a token of each option, ``d`` answers drawn (each once) with their
      counts in ``k``.
    """
    asked = [path.stem for path in reader.inference_files(run.workdir / reader.INFERENCE)]
    kept = pl.col("example_id").is_in(list(ids)) & (pl.col("prompt_variant") == 0)
    there = [point for point in points if point in asked]
    rows = reader.read_inference(run.workdir, there, kept=kept)
    rows = rows.sort("example_id", "point", "run")
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        one = found.setdefault(row["example_id"], {}).setdefault(row["point"], {})
        drawn = row["seed"] is not None
        if row["mode"] == "greedy" and row["run"] == 0:
            one |= {"g": cut(row["prediction"], limit), "p": rounded(_exp(row["gold_logprob"]))}
        elif row["mode"] == "choice" and row["run"] == 0 and not drawn:
            one |= {"c": cut(row["prediction"], limit), "q": rounded(row["confidence"])}
            one["o"] = [rounded(value) for value in row["option_logprob_mean"] or ()]
        elif row["mode"] == "sample" and drawn:
            texts = one.setdefault("_", {})
            texts[row["prediction"]] = texts.get(row["prediction"], 0) + 1
    for one in (answers for of_row in found.values() for answers in of_row.values()):
        drawn = sorted(one.pop("_", {}).items(), key=lambda item: -item[1])[:_DRAWN]
        if drawn:
            one |= {"d": [cut(text, limit) for text, _ in drawn], "k": [n for _, n in drawn]}
    return found


def visits(run: Run, ids: Sequence[int], most: int) -> dict[int, list[list[Any]]]:
    """Loss and probability of rows over training visits, and over probes of other moments.

    Args:
      run: the run.
      ids: the rows wanted.
      most: visits kept a row; of more, the first, the last and evenly spaced ones.

    Returns:
      By row four lists of one length: steps, losses (nats a token), mean probabilities of
      the target token, and 1 where it is a training visit, 0 where it is a probe.
    """
    rows = (
        reader.scan_stats(run.workdir)
        .filter(pl.col("example_id").is_in(list(ids)))
        .select(
            "example_id",
            "step",
            (pl.col("loss_sum") / pl.col("n_tokens")).cast(pl.Float64).alias("loss"),
            pl.col("prob_mean").cast(pl.Float64),
            (pl.col("kind") == "train").cast(pl.Int8).alias("train"),
        )
        .sort("example_id", "step", "train")
        .group_by("example_id", maintain_order=True)
        .agg("step", "loss", "prob_mean", "train")
        .collect()
    )
    found = {}
    for key, *lists in rows.iter_rows():
        n = len(lists[0])
        kept = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
        found[key] = [[rounded(values[i]) for i in kept] for values in lists]
    return found


def rounded(value: Any, digits: int = 4) -> Any:
    """A number with as many significant digits as a reader wants; other values as they are."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _exp(logprob: float | None) -> float | None:
    return None if logprob is None else math.exp(min(logprob, 0.0))
